"""Logged values on the disk, without which a run can go on."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend


@VISBACKENDS.register_module()
class BestEffortVisBackend(LocalVisBackend):
    """mmengine's ``LocalVisBackend``, with which a full disk does not end a run.

    Values that cannot be written are left out of the file, which stays one JSON object
    a line; they are in the checkpoints as well. Arguments as mmengine's.
    """

    _has_warned = False

    def _dump(
        self, value_dict: dict[str, Any], file_path: str, file_format: str
    ) -> None:
        size = os.path.getsize(file_path) if os.path.exists(file_path) else 0
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(file_path, size)
            if not self._has_warned:
                print_log(
                    f"{file_path} cannot be written: {error.strerror}; training goes "
                    "on, and the values of this time are missing there",
                    logger="current",
                    level=logging.WARNING,
                )
            self._has_warned = True
        else:
            self._has_warned = False

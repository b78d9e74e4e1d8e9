"""Where values and pictures are logged to."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend, MLflowVisBackend


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


@VISBACKENDS.register_module()
class MLflowPicturesVisBackend(MLflowVisBackend):
    """mmengine's ``MLflowVisBackend``, which takes pictures of any name.

    mmengine's gives MLflow their name as that of a file, from whose ending MLflow tells
    the format, and refuses one without. Arguments as mmengine's.
    """

    def add_image(
        self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any
    ) -> None:
        """Records a picture as the file ``name_step.png``.

        Args:
            name: Of the picture.
            image: RGB, (H, W, 3) uint8.
            step: Iteration or epoch.
            **kwargs: Ignored, as by mmengine.
        """
        super().add_image(f"{name}_{step}.png", image, step)

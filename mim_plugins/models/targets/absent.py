"""What stands where a frozen teacher would whose file is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..masking import PatchMask
from .base import ImageSpec, LevelSpec, LevelTarget, Target


class AbsentTeacher(nn.Module):
    """A teacher that is not there: the model encodes, and refuses to be trained.

    Runners initialise the model before they train it, and that is where it is refused;
    a training loop of another kind fails in its first step.

    Args:
        source: Where the teacher would be from, such as a file.
        remedy: What to do about it.
    """

    def __init__(self, source: str | Path | None, remedy: str) -> None:
        super().__init__()
        self.reason = (
            f"this model was built without its teacher ({source}): it makes features, "
            f"and cannot be trained. {remedy}"
        )

    def init_weights(self) -> NoReturn:
        """Refuses the training that is about to begin."""
        raise FileNotFoundError(self.reason)

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses to teach."""
        raise FileNotFoundError(self.reason)


@MODELS.register_module()
class AbsentTarget(Target):
    """A target that would need a teacher which is not there.

    The decoders are built for the same predictions, so that whole checkpoints fit; the
    model cannot be trained. Models got by name have one in place of a target whose file
    does not exist, see :func:`mim_plugins.checkpoints.zoo.leave_out_absent_teachers`.

    Args:
        checkpoint: The teacher's file.
        dims: Values the target would have per patch; or else
        like: config of a target of the same shape, as which predictions are shown.

    Raises:
        ValueError: If the file exists, or not one of ``dims`` and ``like`` is given.
    """

    def __init__(
        self, checkpoint: str | Path, dims: int | None = None, like: dict | None = None
    ) -> None:
        super().__init__()
        if Path(checkpoint).exists():
            raise ValueError(
                f"the teacher's file {checkpoint} is there: for a model with its "
                "teacher give get_model the path of the config file, and not its name"
            )
        if (dims is None) == (like is None):
            raise ValueError(
                "an AbsentTarget needs dims, its values per patch, or else like, the "
                f"config of a target of its shape; got dims={dims} and like={like}"
            )
        self.dims = dims
        self.like: Any = None if like is None else MODELS.build(like)
        self.teacher = AbsentTeacher(
            checkpoint,
            "Give the file as target_generator.checkpoint to the config of this model",
        )

    def prepare(self, images: ImageSpec) -> list[LevelSpec]:
        """One shape for all levels."""
        if self.dims is not None:
            return [LevelSpec(self.dims)]
        return self.like.prepare(images)[-1:]

    def init_weights(self) -> NoReturn:
        """Refuses the training that is about to begin."""
        self.teacher.init_weights()

    def forward(self, inputs: Tensor, mask: PatchMask) -> list[LevelTarget]:
        """Refuses to teach."""
        return self.teacher(inputs, mask)

    def denormalise(
        self, predictions: Sequence[Tensor], patches: Tensor
    ) -> list[Tensor | None]:
        """As the target of the same shape."""
        if self.like is None:
            return super().denormalise(predictions, patches)
        return self.like.denormalise(predictions, patches)

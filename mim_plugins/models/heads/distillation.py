"""Losses between layers of a student and of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import as_numbers, is_number
from ..intermediate_features import IntermediateFeatures


class LayerDistillation(BaseModule):
    """Mean squared error between a feature of the student's layers and the teacher's.

    Each pair of layers has an adapter, a linear map without bias from the student's
    heads or width to the teacher's, which is trained too and dropped afterwards. The
    errors, each a mean over all elements, are added (MAE-Lite's released code).

    Args:
        student_layers: Zero-based indices of the student's layers.
        teacher_layers: The layers of the teacher that they are compared with, one for
            each; the same indices by default.
        weight: Coefficient of the loss.
        adapter: Use adapters, even where heads or widths are equal; without adapters
            they must be.

    Raises:
        ValueError: If there are no layers, their numbers differ, a pair is listed
            twice, or the weight is negative.
    """

    feature: str
    adapters: nn.ModuleList

    def __init__(
        self,
        student_layers: Sequence[int],
        teacher_layers: Sequence[int] | None = None,
        weight: float = 1.0,
        adapter: bool = True,
    ) -> None:
        super().__init__()
        if teacher_layers is None:
            teacher_layers = student_layers
        self.student_layers = _as_layers("student_layers", student_layers)
        self.teacher_layers = _as_layers("teacher_layers", teacher_layers)
        if len(self.student_layers) != len(self.teacher_layers):
            raise ValueError(
                f"{type(self).__name__} compares each of the student's layers with one "
                f"of the teacher's, but student_layers={self.student_layers} and "
                f"teacher_layers={self.teacher_layers} differ in number"
            )
        if not self.student_layers:
            raise ValueError(f"{type(self).__name__} has no layers to compare")
        pairs = list(zip(self.student_layers, self.teacher_layers, strict=True))
        if len(set(pairs)) < len(pairs):
            raise ValueError(
                f"{type(self).__name__} lists a pair of layers twice, which would "
                f"count double: student_layers={self.student_layers}, teacher_layers="
                f"{self.teacher_layers}; to give it more weight, set weight"
            )
        if not is_number(weight) or weight < 0:
            raise ValueError(f"weight is a number of at least 0, got {weight!r}")
        self.weight = weight
        self.adapter = adapter

    def prepare(
        self, student: IntermediateFeatures, teacher: IntermediateFeatures
    ) -> None:
        """Builds the adapters that bring the student's layers to the teacher's shape.

        Raises:
            ValueError: If a layer does not exist, or the two networks have different
                tokens there.
        """
        adapters = []
        for ours, theirs in zip(self.student_layers, self.teacher_layers, strict=True):
            own_size, *own_tokens = student.shape(self.feature, ours)
            size, *tokens = teacher.shape(self.feature, theirs)
            if own_tokens != tokens:
                raise ValueError(
                    f"the student's layer {ours} has {own_tokens} tokens, the "
                    f"teacher's layer {theirs} {tokens} (on complete images): "
                    f"{type(self).__name__} compares token by token; choose layers of "
                    "the same resolution"
                )
            if self.adapter:
                adapters.append(self.make_adapter(own_size, size))
            elif own_size != size:
                raise ValueError(
                    f"the student's layer {ours} has {own_size} heads or channels, the "
                    f"teacher's layer {theirs} {size}: without an adapter they have to "
                    "be the same; set adapter=True"
                )
            else:
                adapters.append(nn.Identity())
        self.adapters = nn.ModuleList(adapters)

    def make_adapter(self, own_size: int, size: int) -> nn.Module:
        """The linear map from the student's heads or width to the teacher's."""
        raise NotImplementedError

    def adapted(self, student: Sequence[Tensor]) -> list[Tensor]:
        """Brings the student's layers to the shape of the teacher's."""
        return [
            adapter(layer)
            for adapter, layer in zip(self.adapters, student, strict=True)
        ]

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss, in float32 also under autocast.

        Args:
            student: What was read from each of ``student_layers``.
            teacher: What was read from each of ``teacher_layers``.
        """
        errors = [
            F.mse_loss(ours.float(), theirs.float())
            for ours, theirs in zip(self.adapted(student), teacher, strict=True)
        ]
        return self.weight * sum(errors[1:], errors[0])


def _as_layers(name: str, layers: object) -> tuple[int, ...]:
    """Layer indices as a tuple.

    Raises:
        ValueError: If they are not integers.
    """
    what = "a list of zero-based layer indices, integers"
    indices = as_numbers(name, layers, what)
    if not all(isinstance(index, Integral) for index in indices):
        raise ValueError(f"{name} is {what}; got {layers!r}")
    return tuple(map(int, indices))


@MODELS.register_module()
class AttentionDistillation(LayerDistillation):
    """Distils attention: the logits before the softmax, class token included.

    References:
        - A Closer Look at Self-Supervised Lightweight Vision Transformers, 2023,
          https://arxiv.org/abs/2205.14443, section on distillation

    Note:
        The papers speak of attention maps; the released code, and so the released
        models, compare the logits.
    """

    feature = "attention"

    def make_adapter(self, own_size: int, size: int) -> nn.Module:
        """A 1x1 convolution over the heads."""
        return nn.Conv2d(own_size, size, kernel_size=1, bias=False)


@MODELS.register_module()
class HiddenDistillation(LayerDistillation):
    """Distils hidden states: the normed tokens that enter a block.

    The index after the last block denotes the final norm's output. An option of
    MAE-Lite's released code that none of its recipes uses.
    """

    feature = "hidden"

    def make_adapter(self, own_size: int, size: int) -> nn.Module:
        """A linear layer over the channels."""
        return nn.Linear(own_size, size, bias=False)

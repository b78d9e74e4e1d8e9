"""Fine-tuning with a supervised teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..initialisation import is_pretrained
from ..targets import AbsentTeacher
from ..targets.teacher import FrozenTeacher, load_teacher
from .image import MIMImageClassifier


@MODELS.register_module()
class DistilledClassifier(MIMImageClassifier):
    """An image classifier that also learns the logits of a frozen one.

    The teacher classifies the images as the student gets them, augmented and mixed; it
    is in no checkpoint of this model. Which loss its logits make is the head's affair,
    see :class:`TokenDistillationHead`.

    References:
        - Training data-efficient image transformers & distillation through attention,
          2020, https://arxiv.org/abs/2012.12877, section 4

    Args:
        teacher: A classifier, such as ``dict(type='TimmClassifier',
            model_name='regnety_160', pretrained=True)``. It gets images normalised for
            the student. Built already, it is taken as it is.
        teacher_checkpoint: Its weights, every one of them; None for a teacher that
            brings its own (``pretrained``, or ``init_cfg`` of type Pretrained).
        without_teacher: Build the student alone, for anything but training.
        **kwargs: As mmpretrain's ``ImageClassifier``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is another model's, the teacher has no weights or
            other classes than the head, or the head does not fit the backbone.
    """

    def __init__(
        self,
        teacher: dict | nn.Module,
        teacher_checkpoint: str | Path | None = None,
        without_teacher: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_backbone: Any = getattr(self.head, "check_backbone", None)
        if check_backbone is not None:
            check_backbone(self.backbone)
        self.teacher: nn.Module
        if without_teacher:
            self.teacher = AbsentTeacher(
                teacher_checkpoint or "weights it brings itself",
                "Set without_teacher=False",
            )
            return
        network = teacher
        if not isinstance(network, nn.Module):
            network = _build_trained(network, teacher_checkpoint)
        elif teacher_checkpoint is not None:
            _load(network, teacher_checkpoint)
        classes = _num_classes(network)
        if classes is not None:
            self._check_classes(classes)
        self.teacher = FrozenTeacher(network)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The head's losses of images (N, C, H, W), their labels and the teacher.

        Raises:
            ValueError: If the teacher knows other classes than the head.
        """
        teacher_logits = self.teacher(inputs)
        self._check_classes(teacher_logits.shape[1])
        feats = self.extract_feat(inputs)
        return self.head.loss(feats, data_samples, teacher_logits)

    def _check_classes(self, classes: int) -> None:
        """Checks that the teacher knows the head's classes.

        Raises:
            ValueError: If it has others.
        """
        if classes != self.head.num_classes:
            raise ValueError(
                f"the teacher has {classes} classes, the head {self.head.num_classes}: "
                "give a teacher trained on the same classes"
            )


def _build_trained(teacher: dict, checkpoint: str | Path | None) -> nn.Module:
    """Builds a teacher with its weights.

    Raises:
        ValueError: If it has none.
    """
    network: Any = MODELS.build(teacher)
    if checkpoint is not None:
        _load(network, checkpoint)
    elif is_pretrained(getattr(network, "init_cfg", None)):
        network.init_weights()
    elif not teacher.get("pretrained"):
        raise ValueError(
            f"the teacher, a {type(network).__name__}, has no trained weights, and an "
            "untrained one teaches nothing: set teacher_checkpoint to a file of them, "
            "or pretrained in `teacher`"
        )
    return network


def _load(network: nn.Module, checkpoint: str | Path) -> None:
    """Loads every weight of a teacher."""
    load_teacher(
        network,
        checkpoint,
        option="teacher_checkpoint",
        otherwise="fine-tune with an ImageClassifier",
        trained="a trained classifier",
    )


def _num_classes(network: Any) -> int | None:
    """Number of classes of a classifier, of mmpretrain or timm, if it says."""
    for part in (getattr(network, "head", None), getattr(network, "model", None)):
        if isinstance(classes := getattr(part, "num_classes", None), int):
            return classes
    return None

"""Fine-tuning with a supervised teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..heads import TokenDistillationHead
from ..initialisation import is_pretrained
from ..targets.teacher import (
    AbsentTeacher,
    FrozenTeacher,
    load_teacher,
    require_teachers,
)
from .image import MIMImageClassifier


@MODELS.register_module()
class DistilledClassifier(MIMImageClassifier):
    """An image classifier that also learns the logits of a frozen one.

    The teacher classifies the images as the student gets them, augmented and mixed; it
    is in no checkpoint of this model. The head defines the loss on its logits, see
    :class:`TokenDistillationHead`.

    References:
        - Training data-efficient image transformers & distillation through attention,
          2020, https://arxiv.org/abs/2012.12877, section 4

    Args:
        teacher: A classifier, such as ``dict(type='TimmClassifier',
            model_name='regnety_160', pretrained=True)``. It gets images normalised for
            the student. Built already, it is taken as it is.
        teacher_checkpoint: Its weights, every one of them. If the file does not exist
            the model can still be built, for anything but training. None for a teacher
            that brings its own (``pretrained``, or ``init_cfg`` of type Pretrained),
            which is built, and its weights downloaded, when training starts.
        **kwargs: As mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: If the checkpoint is another model's, the teacher has no weights or
            other classes than the head, or the head does not fit the backbone.
    """

    def __init__(
        self,
        teacher: dict | nn.Module,
        teacher_checkpoint: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(self.head, TokenDistillationHead):
            self.head.check_backbone(self.backbone)
        self.teacher: FrozenTeacher | AbsentTeacher | None = None
        if teacher_checkpoint is not None:
            network: nn.Module = (
                teacher if isinstance(teacher, nn.Module) else MODELS.build(teacher)
            )
            self.teacher = load_teacher(
                network,
                teacher_checkpoint,
                option="teacher_checkpoint",
                otherwise="fine-tune with an ImageClassifier",
                trained="a trained classifier",
            )
            self._check_teacher(network)
        elif isinstance(teacher, nn.Module):
            self._check_teacher(teacher)
            self.teacher = FrozenTeacher(teacher)
        elif not teacher.get("pretrained") and not is_pretrained(
            teacher.get("init_cfg")
        ):
            raise ValueError(
                f"the teacher, a {teacher['type']}, has no trained weights, and an "
                "untrained one teaches nothing: set teacher_checkpoint to a file of "
                "them, or pretrained in `teacher`"
            )
        else:
            self._teacher_cfg = teacher

    def init_weights(self) -> None:
        """Initialises the student, and gets the teacher; called before training.

        Raises:
            FileNotFoundError: If the teacher's file does not exist.
            ValueError: If the teacher has other classes than the head.
        """
        require_teachers(self)
        self._get_teacher()
        super().init_weights()

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The head's losses of images (N, C, H, W), their labels and the teacher.

        Raises:
            ValueError: If the teacher has other classes than the head.
        """
        teacher_logits = self._get_teacher()(inputs)
        self._check_classes(teacher_logits.shape[1])
        feats = self.extract_feat(inputs)
        return self.head.loss(feats, data_samples, teacher_logits)

    def _get_teacher(self) -> FrozenTeacher | AbsentTeacher:
        """The teacher; one that brings its own weights is built when first needed."""
        if self.teacher is None:
            network: nn.Module = MODELS.build(self._teacher_cfg)
            self._check_teacher(network)
            if isinstance(network, BaseModule) and is_pretrained(network.init_cfg):
                network.init_weights()
            device = next(self.parameters()).device
            self.teacher = FrozenTeacher(network).to(device)
        return self.teacher

    def _check_teacher(self, network: nn.Module) -> None:
        """Checks the number of a teacher's classes, if it can be read."""
        classes = _num_classes(network)
        if classes is not None:
            self._check_classes(classes)

    def _check_classes(self, classes: int) -> None:
        """Checks that the teacher has the head's classes.

        Raises:
            ValueError: If it has others.
        """
        if classes != self.head.num_classes:
            raise ValueError(
                f"the teacher has {classes} classes, the head {self.head.num_classes}: "
                "give a teacher trained on the same classes"
            )


def _num_classes(network: nn.Module) -> int | None:
    """Number of classes of a classifier, of mmpretrain or timm, if it has one."""
    for part in (getattr(network, "head", None), getattr(network, "model", None)):
        if isinstance(classes := getattr(part, "num_classes", None), int):
            return classes
    return None

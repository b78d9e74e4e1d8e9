"""Fine-tuning with a supervised teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mim_plugins.checkpoints.loading import read_state_dict

from ..targets import AbsentTeacher
from ..targets.teacher import FrozenTeacher, differences


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
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
            the student.
        teacher_checkpoint: Its weights, every one of them; None for a teacher that
            brings its own.
        without_teacher: Build the student alone, for anything but training.
        **kwargs: As mmpretrain's ``ImageClassifier``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is another model's.
    """

    def __init__(
        self,
        teacher: dict | nn.Module,
        teacher_checkpoint: str | Path | None = None,
        without_teacher: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.teacher: nn.Module
        if without_teacher:
            self.teacher = AbsentTeacher(
                teacher_checkpoint or "weights it brings itself",
                "Set without_teacher=False",
            )
            return
        network: Any = teacher
        if not isinstance(teacher, nn.Module):
            network = MODELS.build(teacher)
        if teacher_checkpoint is not None:
            state = read_state_dict(teacher_checkpoint)
            if problems := differences(network.state_dict(), state):
                raise ValueError(
                    f"teacher_checkpoint={teacher_checkpoint} does not hold the "
                    f"weights of the {type(network).__name__} that `teacher` describes "
                    f"({problems})"
                )
            network.load_state_dict(state)
            MMLogger.get_current_instance().info(
                f"Teacher {type(network).__name__}: all {len(state)} tensors of "
                f"{teacher_checkpoint} loaded"
            )
        self.teacher = FrozenTeacher(network)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The head's losses of images (N, C, H, W), their labels and the teacher.

        Raises:
            ValueError: If the teacher knows other classes than the head.
        """
        teacher_logits = self.teacher(inputs)
        classes = self.head.num_classes
        if teacher_logits.shape[1] != classes:
            raise ValueError(
                f"the teacher has {teacher_logits.shape[1]} classes, the head "
                f"{classes}: give a teacher trained on the same classes"
            )
        feats = self.extract_feat(inputs)
        return self.head.loss(feats, data_samples, teacher_logits)

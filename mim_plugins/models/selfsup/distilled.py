"""MAE-Lite and D2-MAE: masked image modelling with distillation from a teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..heads.distillation import LayerDistillation
from ..initialisation import is_pretrained
from ..intermediate_features import IntermediateFeatures
from ..masking import PatchMask
from ..protocols import BlockwiseEncoder
from ..targets.teacher import FrozenTeacher, load_teacher
from .base import MaskedImageModel, build_part


@MODELS.register_module()
class DistilledMIM(MaskedImageModel):
    """Masked image modelling with distillation from a frozen, larger encoder.

    The teacher encodes the same visible patches as the student, no further than the
    deepest layer that is compared; one loss for each distilled feature is added to the
    reconstruction losses, whatever their levels and targets. Decoupled (D2-MAE), the
    decoder reads a lower block (``backbone.final_block``), and the attention logits of
    an extra block after the last one are compared with the teacher's.

    References:
        - A Closer Look at Self-Supervised Lightweight Vision Transformers, 2023,
          https://arxiv.org/abs/2205.14443
        - An Experimental Study on Exploring Strong Lightweight Vision Transformers via
          Masked Image Modeling Pre-Training, 2024, https://arxiv.org/abs/2404.12210

    Args:
        teacher: The teacher's encoder, with the student's patches. It is in no
            checkpoint of this model.
        teacher_checkpoint: Its weights: a pre-training checkpoint of this package, or
            an official one, of which the encoder is taken. None only for a teacher
            that is given built and trained. If the file does not exist the model can
            still be built, with what distillation trains of it, for anything but
            training.
        distillation: What is compared: configs of :class:`AttentionDistillation` and
            :class:`HiddenDistillation`, each at most once.
        extra_block: Add a block after the last one; its index is the one after the
            last block's, 12 for a student of 12 blocks.
        **kwargs: As :class:`MaskedImageModel`.

    Raises:
        ValueError: If the teacher does not see the student's patches or is the student,
            the checkpoint is another model's, a layer does not exist, or a block would
            be trained by nothing.
    """

    backbone: BlockwiseEncoder
    student: IntermediateFeatures

    # By the distillation, see `_check_training`.
    trains_all_blocks = True

    def __init__(
        self,
        teacher: dict | nn.Module,
        distillation: Sequence[dict | nn.Module],
        teacher_checkpoint: str | Path | None = None,
        extra_block: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        network = build_part(teacher)
        terms = _by_feature(map(build_part, distillation))
        student = IntermediateFeatures(
            self.backbone,
            {feature: term.student_layers for feature, term in terms.items()},
            name="student",
        )
        teacher_features = IntermediateFeatures(
            network,
            {feature: term.teacher_layers for feature, term in terms.items()},
            name="teacher",
        )
        _check_teacher(self.backbone, network)
        self.extra_block = self.backbone.attention_only_block() if extra_block else None
        student.extra_block = self.extra_block
        self.distillation = terms
        for term in terms.values():
            term.prepare(student, teacher_features)
        # Not registered as a child: its encoder is in the model already.
        self.__dict__["student"] = student
        self._check_training()
        if teacher_checkpoint is not None:
            self.teacher = load_teacher(
                network,
                teacher_checkpoint,
                option="teacher_checkpoint",
                otherwise="train plain MAE, configs/distilled/mae_vitt_400e.py",
                reader=teacher_features,
            )
        elif isinstance(teacher, nn.Module):
            self.teacher = FrozenTeacher(teacher_features)
        else:
            raise ValueError(
                "an untrained teacher teaches nothing: set teacher_checkpoint to the "
                "weights of a trained MAE"
            )

    def init_weights(self) -> None:
        """Initialises as the official code, unless weights were loaded."""
        super().init_weights()
        if self.extra_block is not None and not is_pretrained(self.init_cfg):
            self.backbone.init_layers(self.extra_block)

    def encode(
        self, inputs: Tensor, mask: PatchMask
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Encodes a batch, and compares the student with its teacher.

        Returns:
            One latent per level; ``loss_attention`` and ``loss_hidden`` as configured.
        """
        stream = list(self.backbone.stream(inputs, mask))
        latents = self.backbone.latents(stream)
        ours, theirs = self.student.from_stream(stream), self.teacher(inputs, mask)
        return latents, {
            f"loss_{feature}": term(ours[feature], theirs[feature])
            for feature, term in self.distillation.items()
        }

    def _check_training(self) -> None:
        """Checks that every block of the student is trained by something.

        Raises:
            ValueError: Naming the blocks that are not, and what to change.
        """
        blocks = len(self.backbone.blocks)
        layers = {n: term.student_layers for n, term in self.distillation.items()}
        if self.extra_block is not None and blocks not in layers.get("attention", ()):
            raise ValueError(
                f"extra_block=True adds layer {blocks}, which is compared with nothing:"
                " name it in student_layers of an AttentionDistillation, or leave "
                "extra_block out"
            )
        # A layer's features depend on the blocks before it; all of its own block is
        # trained only if something depends on the block's output.
        final = self.backbone.final_block
        trained = max(final + 1, *(max(indices) for indices in layers.values()))
        if trained < blocks:
            raise ValueError(
                f"nothing would train all of the blocks from {trained} on: the decoder "
                f"reads block {final} (backbone.final_block), the distillation what "
                f"enters layers {layers}; set extra_block=True and distil layer "
                f"{blocks}, after the last block"
            )


def _by_feature(terms: Iterable[LayerDistillation]) -> Any:
    """One term for each feature.

    Raises:
        ValueError: If there is none, or two of one feature.
    """
    result: dict[str, nn.Module] = {}
    for term in terms:
        if term.feature in result:
            raise ValueError(
                f"distillation has two {type(term).__name__}: list all layers in one"
            )
        result[term.feature] = term
    if not result:
        raise ValueError(
            "distillation is empty: name what is compared with the teacher, such as "
            "dict(type='AttentionDistillation', student_layers=(11,))"
        )
    return nn.ModuleDict(result)


def _check_teacher(student: BlockwiseEncoder, teacher: BlockwiseEncoder) -> None:
    """Checks that two encoders share no parameters and see the same patches.

    Raises:
        ValueError: Naming the first thing that is wrong.
    """
    own = set(map(id, student.parameters()))
    if any(id(parameter) in own for parameter in teacher.parameters()):
        raise ValueError(
            "the teacher has parameters of the student, which would be frozen with it: "
            "give it a network of its own, such as copy.deepcopy(backbone)"
        )
    seen, taught = (
        "complete maps" if encoder.keeps_masked_tokens else "visible units alone"
        for encoder in (student, teacher)
    )
    if seen != taught:
        raise ValueError(
            f"the teacher, a {type(teacher).__name__}, encodes {taught}, the student, "
            f"a {type(student).__name__}, {seen}: there are no tokens to compare; take "
            "SimMIMSwin for both, or for neither"
        )
    for ours, theirs in zip(
        _what_it_encodes(student), _what_it_encodes(teacher), strict=True
    ):
        if ours != theirs:
            raise ValueError(
                f"the teacher has {theirs}, the student {ours}: they encode the same "
                "patches of the same images; give the teacher the student's img_size, "
                "patch_size and in_channels, and a checkpoint trained so"
            )


def _what_it_encodes(encoder: BlockwiseEncoder) -> list[str]:
    """Patches, channels and tokens of an encoder, in words."""
    return [
        f"a grid (rows, columns) of {encoder.grid} patches",
        f"patches of {encoder.mask_patch_size} pixels",
        f"{encoder.in_channels} image channels",
        f"{encoder.num_extra_tokens} class tokens",
    ]

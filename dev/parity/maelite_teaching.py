"""What teaching adds to MAE-Lite's golden cases, on any encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mim_plugins.checkpoints.layouts.mae_lite import convert_teacher
from mim_plugins.models.masking import PatchMask


def load_encoder(config: dict, weights: dict[str, Tensor]) -> nn.Module:
    """The teacher's encoder, with its weights out of the training wrapper's."""
    encoder = MODELS.build(config)
    prefix = "backbone."
    encoder.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in convert_teacher(weights).items()
            if key.startswith(prefix)
        }
    )
    return encoder


def teaching(
    model: Any, images: Tensor, mask: PatchMask, stream: Sequence[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of distillation, added, and the arrays they are made of."""
    taught = model.teacher(images, mask)
    losses: list[Any] = []
    arrays: dict[str, Tensor] = {}
    for name, layers in model.student.from_stream(stream).items():
        term = model.distillation[name]
        losses.append(term(layers, taught[name]))
        arrays |= distilled_arrays(term, layers, taught[name])
    return sum(losses), arrays


def distillation_terms(args: dict, order: str) -> list[dict]:
    """What is distilled; layers count from one in the official arguments.

    Args:
        args: The official arguments.
        order: Whose layers the official adapters are numbered by, ``'teacher'`` or
            ``'student'``; ours are converted in the order of those numbers.
    """
    student = args.get("student_attn_idx", args.get("attn_idx", []))
    teacher = args.get("teacher_attn_idx", args.get("attn_idx", []))
    numbered = ("student", "teacher").index(order)
    pairs = sorted(zip(student, teacher, strict=True), key=lambda pair: pair[numbered])
    hidden = sorted(args.get("hidden_idx", args.get("distill_hidden_idx", [])))
    terms = []
    if pairs:
        terms.append(
            dict(
                type="AttentionDistillation",
                student_layers=[layer - 1 for layer, _ in pairs],
                teacher_layers=[layer - 1 for _, layer in pairs],
                weight=args["distill_attn_alpha"],
                adapter=args.get("use_attn_adapter", True),
            )
        )
    if hidden:
        terms.append(
            dict(
                type="HiddenDistillation",
                student_layers=hidden,
                weight=args["distill_hidden_alpha"],
            )
        )
    return terms


def distilled_arrays(
    term: Any, student: list[Tensor], teacher: list[Tensor]
) -> dict[str, Tensor]:
    """What one quantity adds to the arrays, named by the student's layer."""
    attention = term.feature == "attention"
    name = "attn" if attention else "hidden"
    arrays: dict[str, Any] = {}
    errors = []
    for layer, ours, theirs, adapted in zip(
        term.student_layers, student, teacher, term.adapted(student), strict=True
    ):
        errors.append(F.mse_loss(adapted, theirs))
        found = dict(student=ours, teacher=theirs, adapted=adapted, loss=errors[-1])
        number = layer + 1 if attention else layer
        for what, value in found.items():
            arrays[f"{what}_{name}_{number}"] = value
            if attention:
                # With one layer the arrays carry no number.
                arrays[f"{what}_{name}"] = value
    arrays[f"loss_{name}"] = sum(errors)
    return arrays

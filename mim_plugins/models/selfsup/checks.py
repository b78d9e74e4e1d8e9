"""Checks of the parts of a model against each other."""

from __future__ import annotations

from collections.abc import Sequence

from ..data_preprocessor import image_statistics
from ..mask_samplers import RandomPatchMask
from ..protocols import BlockwiseEncoder, LevelNeck, MaskedEncoder, MaskedModel
from ..specs import LevelSpec


def one_per_level(targets: list[LevelSpec], num_levels: int) -> list[LevelSpec]:
    """One shape for each prediction that is compared with a target.

    Raises:
        ValueError: If the targets are for another number of levels.
    """
    if len(targets) == 1:
        return targets * num_levels
    if len(targets) != num_levels:
        raise ValueError(
            f"target_generator makes targets for {len(targets)} levels, the model has "
            f"{num_levels}: give one value (target, alpha, cell_size) for all levels, "
            "or one per level, shallow to deep"
        )
    return targets


def check_parts(model: MaskedModel) -> None:
    """Checks that encoder, decoders, head, masks and data fit each other.

    Raises:
        ValueError: Naming what does not fit and what to change.
    """
    rows, cols = model.backbone.grid
    if isinstance(model.mask_sampler, RandomPatchMask):
        model.mask_sampler.count_visible(rows * cols)
    _check_levels(model)
    mean, _ = image_statistics(model.data_preprocessor)
    channels = model.backbone.in_channels
    if mean is not None and mean.numel() not in (1, channels):
        raise ValueError(
            f"data_preprocessor has mean and std for {mean.numel()} channels, the "
            f"encoder takes {channels}: set backbone.in_channels to the channels of "
            "the data, and mean and std likewise"
        )


def check_targets(model: MaskedModel, targets: Sequence[LevelSpec]) -> None:
    """Checks every level's prediction against its target.

    Raises:
        ValueError: Naming the level, and what to change.
    """
    for level, (target, width) in enumerate(
        zip(targets, model.neck.out_dims, strict=True)
    ):
        model.neck.check_target(level, target)
        if width != target.width:
            raise ValueError(
                f"level {level} predicts {width} values per patch, its target has "
                f"{target.width}: leave the neck's out_dims out, it follows from the "
                "target"
            )


def check_blocks(model: MaskedModel) -> None:
    """Checks that every block of the encoder is trained by something.

    Raises:
        ValueError: Naming those that are not.
    """
    encoder = model.backbone
    if model.trains_all_blocks or not isinstance(encoder, BlockwiseEncoder):
        return
    final, last = encoder.final_block, len(encoder.blocks) - 1
    if final < last:
        raise ValueError(
            f"the deepest latent is block {final}'s, of blocks 0 to {last}, so that "
            f"nothing in {type(model).__name__} would train those after it: leave "
            "backbone.final_block (of a SimMIMSwin, final_stage) out, or distil a "
            "teacher into them, type='DistilledMIM'"
        )


def _check_levels(model: MaskedModel) -> None:
    """Checks the numbers of latents, predictions and targets."""
    counts = {
        type(part).__name__: part.predictions_per_target
        for part in (model, model.neck, model.head)
    }
    if len(set(counts.values())) > 1:
        raise ValueError(
            "the parts differ in how many predictions are compared with one target: "
            f"{', '.join(f'{name} {count}' for name, count in counts.items())}. MIRL, "
            "MIRLDecoder and ResidualPairHead, which add up pairs, go with each other "
            "alone"
        )
    levels = model.backbone.num_levels
    if model.neck.num_levels != levels:
        raise ValueError(
            f"the encoder has {levels} levels, the neck decodes "
            f"{model.neck.num_levels}: leave the neck's in_dims out, or give one "
            "width per level"
        )
    model.head.check_levels(len(model.neck.out_dims))


def check_tokens(encoder: MaskedEncoder, neck: type[LevelNeck]) -> None:
    """Checks that the encoder's tokens are what such a neck decodes.

    Raises:
        ValueError: Naming both, and what goes with what.
    """
    complete = encoder.keeps_masked_tokens
    if complete != neck.decodes_masked_tokens:
        raise ValueError(
            f"{type(encoder).__name__} gives "
            f"{'complete maps' if complete else 'visible tokens alone'}, which "
            f"{neck.__name__} does not decode: SimMIMDecoder goes with "
            "SimMIMSwin, all other decoders with all other encoders"
        )
    if neck.needs_cls_token and not encoder.num_extra_tokens:
        raise ValueError(
            f"{neck.__name__} needs an encoder with a class token: leave "
            "backbone.with_cls_token at True"
        )
    if encoder.out_type == "avg_featmap":
        raise ValueError(
            "backbone.out_type='avg_featmap' adds a norm that pre-training never "
            "trains: leave out_type out here and set it for fine-tuning"
        )

"""What an encoder and a decoder must offer, with defaults for the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from .data_preprocessor import image_statistics, reverses_channels
from .initialisation import init_transformer
from .masking import PatchMask
from .patches import patch_grid
from .specs import ImageSpec, LevelSpec


class MaskedEncoder(BaseModule):
    """An encoder that can encode the visible patches of masked images.

    Subclasses set the attributes without a default in ``__init__`` and implement
    :meth:`forward`. Fine-tuning with layer-wise learning rates also needs mmpretrain's
    ``get_layer_depth(param_name, prefix)``.

    Attributes:
        grid: Rows and columns of the mask's patches, at the image size the encoder was
            built for.
        mask_patch_size: Height and width in pixels of the unit that a mask removes: a
            ViT's patch, a Swin Transformer's cell, a Hiera's mask unit.
        in_channels: Number of image channels.
        level_dims: Width of each latent of a masked forward pass, shallow to deep.
        level_scales: Tokens per patch of the mask and axis in each latent; None if
            every level has one token per patch.
        taps: Zero-based indices of the blocks, or stages, whose output is a latent
            before the final one.
        num_extra_tokens: Class tokens, which come before the patch tokens.
        tap_embedding: Whether the first latent is the embedding that enters the first
            block.
        keeps_masked_tokens: Whether latents hold a token for every patch, in raster
            order, because the encoder reads mask tokens (SimMIM).
        latent_is_normed: Whether the last latent is normed.
        out_type: What the forward pass without a mask returns; ``'avg_featmap'`` is
            refused in pre-training, since nothing would train its norm.
    """

    grid: tuple[int, int]
    mask_patch_size: tuple[int, int]
    in_channels: int
    level_dims: list[int]
    level_scales: list[int] | None = None
    taps: tuple[int, ...] = ()
    num_extra_tokens: int = 0
    tap_embedding: bool = False
    keeps_masked_tokens: bool = False
    latent_is_normed: bool = True
    out_type: str = "featmap"

    @abstractmethod
    def forward(
        self, x: Tensor, mask: PatchMask | Tensor | None = None
    ) -> tuple[Tensor, ...] | list[Tensor]:
        """Encodes images, all of them or their visible patches only.

        Args:
            x: Images, (N, C, H, W).
            mask: ``None`` for plain features; a ``PatchMask`` or a tensor (N, L) with
                1 = removed for the masked pass, see :func:`as_patch_mask`. Encoders
                never draw masks.

        Returns:
            Without a mask, a tuple of features. With one, a list of latents, shallow to
            deep, (N, num_extra_tokens + L_vis * t**2, C): class tokens, then visible
            patches in the order of ``mask.ids_keep``, the t x t tokens of a patch
            (``level_scales``) row by row.
        """

    @property
    def num_levels(self) -> int:
        """Number of latents of a masked forward pass."""
        return len(self.level_dims)

    @property
    def level_names(self) -> list[str]:
        """Captions of the levels, shallow to deep."""
        return [f"level {level}" for level in range(self.num_levels)]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images the encoder was built for."""
        (rows, cols), (height, width) = self.grid, self.mask_patch_size
        return rows * height, cols * width

    def image_spec(self, data_preprocessor: nn.Module) -> ImageSpec:
        """The encoder's images, as a data preprocessor normalises them."""
        mean, std = image_statistics(data_preprocessor)
        return ImageSpec(
            grid=self.grid,
            patch_size=self.mask_patch_size,
            channels=self.in_channels,
            mean=mean,
            std=std,
            bgr_to_rgb=reverses_channels(data_preprocessor),
        )

    def image_grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of the mask's patches in images (N, C, H, W).

        Raises:
            ValueError: If the images do not divide into patches.
        """
        return patch_grid((x.shape[-2], x.shape[-1]), self.mask_patch_size)

    def encode_unmasked(self, x: Tensor) -> Tensor:
        """Encodes complete images as masked ones are encoded in pre-training.

        Args:
            x: Images, (N, C, H, W).

        Returns:
            The last latent of a mask that removes nothing, see :meth:`forward`.
        """
        rows, cols = self.image_grid(x)
        return self(x, x.new_zeros(len(x), rows * cols))[-1]


class BlockwiseEncoder(MaskedEncoder):
    """A masked encoder whose blocks can be run and read one by one.

    Distillation needs it, see :class:`IntermediateFeatures`: every quantity of a block
    that is compared is a function of the tokens that enter it, so nothing is hooked
    into the encoder.

    Attributes:
        final_block: Zero-based index of the block whose output becomes the last latent.
            The blocks after it are trained by distillation alone, or frozen.
    """

    final_block: int

    # Initialises a module as the encoder's own layers are initialised.
    init_layers = staticmethod(init_transformer)

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks, shallow to deep."""

    @property
    @abstractmethod
    def norms(self) -> list[nn.Module]:
        """The norm of the tokens that enter each block, then the final norm, if any."""

    @abstractmethod
    def stream(self, x: Tensor, mask: PatchMask | Tensor) -> Iterator[Tensor]:
        """Encodes images (N, C, H, W) block by block, as far as it is iterated.

        Yields:
            The tokens that enter block 0, 1, ... and finally those that leave the last
            block, un-normed.
        """

    @abstractmethod
    def latents(self, stream: Iterable[Tensor]) -> list[Tensor]:
        """Picks the latents of :meth:`forward` out of :meth:`stream`."""

    @abstractmethod
    def last_tokens(self, stream: Iterable[Tensor]) -> Tensor:
        """The tokens that leave the last block, un-normed, in the order of latents."""

    @abstractmethod
    def attention_shape(self, block: int) -> tuple[int, ...]:
        """Heads, queries and keys of a block's attention.

        On complete images of ``image_size``; further numbers where attention differs in
        more. The index after the last block denotes an :meth:`attention_only_block`.
        """

    @abstractmethod
    def hidden_shape(self, block: int) -> tuple[int, int]:
        """Number and width of the tokens that enter a block.

        On complete images of ``image_size``. The index after the last block denotes
        the tokens that leave it.
        """

    @abstractmethod
    def attention_logits(self, block: Any, tokens: Tensor) -> Tensor:
        """Attention of a block before the softmax, (N, heads, queries, keys).

        Args:
            block: One of :attr:`blocks`, or an :meth:`attention_only_block`.
            tokens: The tokens that enter it, of :meth:`stream`.
        """

    @abstractmethod
    def attention_only_block(self) -> nn.Module:
        """An extra block after the last one, reduced to what attention logits need."""

    def encode_unmasked(self, x: Tensor) -> Tensor:
        """Encodes complete images as masked ones are encoded in pre-training.

        If ``final_block`` is not the last block, the tokens that leave the last one are
        returned, un-normed, since fine-tuning starts from them.
        """
        if self.final_block == len(self.blocks) - 1:
            return super().encode_unmasked(x)
        rows, cols = self.image_grid(x)
        return self.last_tokens(self.stream(x, x.new_zeros(len(x), rows * cols)))


@dataclass(frozen=True)
class NeckPlan:
    """How a neck would decode a certain encoder.

    Args:
        num_targets: Number of predictions, or sums of them, that have a target.
        arguments: Arguments of the neck that follow from the encoder.
        target_scales: Cells per patch and axis of each level's target where the config
            does not set them; None leaves targets at their own default.
        takes_scales: Whether the neck has an argument ``scales``, the cells per patch
            and axis of each target.
    """

    num_targets: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    target_scales: Sequence[float] | None = None
    takes_scales: bool = False

    def arguments_for(self, targets: Sequence[LevelSpec]) -> dict[str, Any]:
        """All arguments of the neck that follow from the encoder and the targets."""
        arguments = {**self.arguments, "out_dims": [t.width for t in targets]}
        if self.takes_scales:
            arguments["scales"] = [target.scale for target in targets]
        return arguments


class LevelNeck(BaseModule):
    """The decoders of pre-training: from latents of the encoder to predictions.

    Subclasses set the attributes without a default and implement :meth:`forward`.

    Attributes:
        num_levels: Number of latents that are decoded.
        out_dims: Width of each prediction that has a target, per patch.
        predictions_per_target: How many predictions are compared with one target
            together; model, neck and head must agree.
        needs_cls_token: Whether latents must start with a class token.
        decodes_masked_tokens: Whether latents hold a token for every patch, see
            :attr:`MaskedEncoder.keeps_masked_tokens`.
    """

    num_levels: int
    out_dims: list[int]
    predictions_per_target: int = 1
    needs_cls_token: bool = False
    decodes_masked_tokens: bool = False

    @classmethod
    def plan(cls, encoder: MaskedEncoder) -> NeckPlan:
        """Plans how a neck of this class decodes an encoder, before it is built.

        Raises:
            ValueError: If they cannot.
        """
        return NeckPlan(
            num_targets=encoder.num_levels,
            arguments=dict(grid=encoder.grid, in_dims=encoder.level_dims),
        )

    def check_target(self, level: int, target: LevelSpec) -> None:
        """Checks that a target has the scale that is predicted.

        Raises:
            ValueError: If its cells pool patches.
        """
        if target.scale < 1:
            raise ValueError(
                f"the target of level {level} has one cell for "
                f"{round(1 / target.scale)} patches per axis, but "
                f"{type(self).__name__} predicts every patch: choose a cell no larger "
                "than a patch, or a MultiScaleDecoder"
            )

    @abstractmethod
    def forward(
        self, latents: Sequence[Tensor], mask: PatchMask, masked_only: bool = True
    ) -> list[Tensor]:
        """Predicts patches from the latents.

        Args:
            latents: One per level, see :meth:`MaskedEncoder.forward`.
            mask: The mask the encoder saw.
            masked_only: Predict removed patches alone, in the order of
                ``mask.ids_masked``; otherwise every patch in raster order.

        Returns:
            One (N, L_mask or L, out_dims) per prediction.
        """


class MaskedModel(BaseModule):
    """The parts of a masked image model, see :class:`MaskedImageModel`.

    Attributes:
        predictions_per_target: As :attr:`LevelNeck.predictions_per_target`.
        trains_all_blocks: Whether something trains the blocks after the encoder's
            ``final_block``.
    """

    backbone: MaskedEncoder
    neck: LevelNeck
    head: Any
    target_generator: Any
    mask_sampler: nn.Module
    data_preprocessor: nn.Module
    predictions_per_target: int = 1
    trains_all_blocks: bool = False

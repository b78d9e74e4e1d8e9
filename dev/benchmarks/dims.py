"""The sizes of a model that an implementation must share with it."""

from dataclasses import dataclass
from typing import Any

from mim_plugins.models.masking import count_visible


@dataclass(frozen=True)
class MIMDims:
    """Sizes of a masked image model with self-attention decoders.

    Attributes:
        img_size: Height and width of the images in pixels.
        patch_size: Side of a square patch in pixels.
        in_channels: Image channels.
        mask_ratio: Share of the patches that is removed.
        width: Token width of the encoder.
        depth: Blocks of the encoder.
        heads: Attention heads of the encoder.
        hidden: Hidden width of the encoder's MLPs.
        taps: Zero-based indices of the supervised blocks before the last level.
        decoder_width: Token width of each decoder.
        decoder_depth: Blocks of each decoder.
        decoder_heads: Attention heads of each decoder.
        decoder_hidden: Hidden width of the decoders' MLPs.
        norm_pix: Whether the pixel target is normalised per patch.
        teacher: Sizes of the frozen teacher encoder (those of its decoders are unused);
            None if there is none.
        student_reads: Zero-based blocks of the encoder whose attention logits are
            distilled; ``depth`` is the logits-only block after the last one.
        teacher_reads: The teacher's blocks they are compared with.
    """

    img_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_channels: int = 3
    mask_ratio: float = 0.75
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    taps: tuple[int, ...] = ()
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_hidden: int = 2048
    norm_pix: bool = True
    teacher: "MIMDims | None" = None
    student_reads: tuple[int, ...] = ()
    teacher_reads: tuple[int, ...] = ()

    @classmethod
    def from_model(cls, model: Any) -> "MIMDims":
        """Read the sizes off a built model.

        Args:
            model: A :class:`~mim_plugins.models.MaskedImageModel` with a vision
                transformer, self-attention decoders and pixel targets.

        Raises:
            ValueError: If a part of it is another.
        """
        expected = {
            "backbone": "MIMVisionTransformer",
            "neck": "MIMDecoder",
            "target_generator": "PixelTarget",
        }
        for part, name in expected.items():
            found = type(getattr(model, part, None)).__name__
            if found != name:
                raise ValueError(
                    f"no FLOP formula for a model whose {part} is {found}: the "
                    f"benchmark knows {name}"
                )
        encoder, decoder = model.backbone, model.neck.decoders[0]
        encoder_layer, decoder_layer = encoder.layers[0], decoder.decoder_blocks[0]
        rows, cols = encoder.grid
        patch_size, patch_width = encoder.patch_size
        if patch_size != patch_width:
            raise ValueError(
                f"the benchmark knows square patches, got {encoder.patch_size}"
            )
        decoder_width = decoder.decoder_embed.out_features
        return cls(
            img_size=(rows * patch_size, cols * patch_size),
            patch_size=patch_size,
            in_channels=encoder.in_channels,
            mask_ratio=model.mask_sampler.mask_ratio,
            width=encoder.embed_dims,
            depth=encoder.num_layers,
            heads=encoder_layer.attn.num_heads,
            hidden=encoder_layer.ffn.feedforward_channels,
            taps=tuple(encoder.taps),
            decoder_width=decoder_width,
            decoder_depth=len(decoder.decoder_blocks),
            decoder_heads=decoder_layer.attn.num_heads,
            decoder_hidden=decoder_layer.ffn.feedforward_channels,
            norm_pix=model.target_generator.norm_pix,
            **cls._distilled(model),
        )

    @classmethod
    def _distilled(cls, model: Any) -> dict[str, Any]:
        """What a DistilledMIM has more; nothing of another model.

        Raises:
            ValueError: If something other than attention is distilled.
        """
        terms = getattr(model, "distillation", None)
        if terms is None:
            return {}
        if set(terms) != {"attention"}:
            raise ValueError(
                f"no FLOP formula for the distillation of {sorted(terms)}: the "
                "benchmark knows attention"
            )
        encoder, term = model.teacher.network.encoder, terms["attention"]
        rows, cols = encoder.grid
        teacher = cls(
            img_size=(rows * encoder.patch_size[0], cols * encoder.patch_size[1]),
            patch_size=encoder.patch_size[0],
            in_channels=encoder.in_channels,
            mask_ratio=model.mask_sampler.mask_ratio,
            width=encoder.embed_dims,
            depth=encoder.num_layers,
            heads=encoder.layers[0].attn.num_heads,
            hidden=encoder.layers[0].ffn.feedforward_channels,
        )
        return dict(
            teacher=teacher,
            student_reads=term.student_layers,
            teacher_reads=term.teacher_layers,
        )

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        height, width = self.img_size
        return (height // self.patch_size) * (width // self.patch_size)

    @property
    def visible(self) -> int:
        """Number of patches the encoder sees."""
        return count_visible(self.patches, self.mask_ratio)

    @property
    def levels(self) -> int:
        """Number of supervised levels."""
        return len(self.taps) + 1

    @property
    def patch_values(self) -> int:
        """Numbers in one patch of the image."""
        return self.patch_size**2 * self.in_channels

    @property
    def target_dims(self) -> int:
        """Numbers in the target of one patch."""
        return self.patch_values

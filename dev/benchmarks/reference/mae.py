"""MAE and DeepMIM on pixels, computed the way the official code does."""

from typing import NamedTuple

import torch
from torch import nn

from .vit import Block, PatchEmbed, sincos_position_embedding


class ReferenceOutput(NamedTuple):
    """What one forward pass of :class:`ReferenceMAE` computes.

    Attributes:
        loss: Sum of the levels' losses.
        losses: One loss per level, shallow to deep.
        latents: One (N, 1 + L_visible, C) per level; only the last is normed.
        preds: One (N, 1 + L, p * p * C_in) per level, class-token row included.
        target: (N, L, p * p * C_in), every patch.
        mask: (N, L), 1 = removed, raster order.
        ids_restore: (N, L) int64.
    """

    loss: torch.Tensor
    losses: list[torch.Tensor]
    latents: list[torch.Tensor]
    preds: list[torch.Tensor]
    target: torch.Tensor
    mask: torch.Tensor
    ids_restore: torch.Tensor


class ReferenceMAE(nn.Module):
    """A masked autoencoder that takes no short cut.

    All patches are embedded before three quarters are dropped, attention matrices
    are written out, every decoder layer sees every token in raster order, and all
    patches are predicted before the visible ones are masked out of the loss. The
    benchmark times the package's modules against it, and the stored outputs of the
    official code test it. `Masked Autoencoders Are Scalable Vision Learners
    <https://arxiv.org/abs/2111.06377>`_ (2021); with ``taps``, `DeepMIM: Deep
    Supervision for Masked Image Modeling <https://arxiv.org/abs/2303.08817>`_ (2023).

    Parameters have the official names: MAE's (``decoder_blocks.0...``) without taps,
    DeepMIM's (``decoder_blocks1.0...`` to ``decoder_blocks4.0...``) with them.

    Args:
        img_size: Height and width of the images in pixels, or one number for both.
        patch_size: Side of a square patch in pixels.
        in_chans: Image channels.
        embed_dim: Token width of the encoder.
        depth: Number of encoder blocks.
        num_heads: Attention heads of the encoder.
        decoder_embed_dim: Token width of each decoder.
        decoder_depth: Number of blocks of each decoder.
        decoder_num_heads: Attention heads of each decoder.
        mlp_ratio: Hidden width over token width in all MLPs.
        norm_pix_loss: Whether targets are normalised per patch.
        mask_ratio: Share of the patches to remove.
        taps: Zero-based indices of the encoder blocks that have a decoder of their
            own in addition to the one after the last block.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        norm_pix_loss: bool = True,
        mask_ratio: float = 0.75,
        taps: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        grid = (height // patch_size, width // patch_size)
        self.patch_size = patch_size
        self.norm_pix_loss = norm_pix_loss
        self.mask_ratio = mask_ratio
        self.taps = taps

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(
            sincos_position_embedding(embed_dim, grid), requires_grad=False
        )
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(decoder_embed_dim, grid), requires_grad=False
        )
        numbered = [str(level + 1) for level in range(len(taps) + 1)]
        self.levels = numbered if taps else [""]
        for level in self.levels:
            blocks = nn.ModuleList(
                Block(decoder_embed_dim, decoder_num_heads, mlp_ratio)
                for _ in range(decoder_depth)
            )
            pred = nn.Linear(decoder_embed_dim, patch_size**2 * in_chans)
            mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
            norm = nn.LayerNorm(decoder_embed_dim, eps=1e-6)
            setattr(
                self,
                f"decoder_embed{level}",
                nn.Linear(embed_dim, decoder_embed_dim),
            )
            setattr(self, f"mask_token{level}", mask_token)
            setattr(self, f"decoder_blocks{level}", blocks)
            setattr(self, f"decoder_norm{level}", norm)
            setattr(self, f"decoder_pred{level}", pred)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the official code: Xavier linears, small normal tokens."""
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))
        nn.init.normal_(self.cls_token, std=0.02)
        for level in self.levels:
            nn.init.normal_(getattr(self, f"mask_token{level}"), std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images (N, C, H, W) into (N, L, p * p * C), channels fastest."""
        n, c, height, width = images.shape
        p = self.patch_size
        x = images.reshape(n, c, height // p, p, width // p, p)
        return torch.einsum("nchpwq->nhwpqc", x).reshape(n, -1, p * p * c)

    def target(self, images: torch.Tensor) -> torch.Tensor:
        """Make the regression target (N, L, p * p * C) of all patches."""
        target = self.patchify(images)
        if self.norm_pix_loss:
            mean = target.mean(dim=-1, keepdim=True)
            var = target.var(dim=-1, keepdim=True)
            target = (target - mean) / (var + 1e-6) ** 0.5
        return target

    def random_masking(
        self, x: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keep the tokens of the smallest noise, in the order of the noise.

        Args:
            x: Tokens (N, L, C).
            noise: (N, L) numbers to sort by; drawn when not given.

        Returns:
            Kept tokens (N, L_visible, C), mask (N, L) and ids_restore (N, L).
        """
        n, length, c = x.shape
        keep = int(length * (1 - self.mask_ratio))
        if noise is None:
            noise = torch.rand(n, length, device=x.device)
        ids_shuffle = torch.argsort(noise, dim=1)
        ids_restore = torch.argsort(ids_shuffle, dim=1)
        ids_keep = ids_shuffle[:, :keep]
        x = torch.gather(x, 1, ids_keep.unsqueeze(-1).repeat(1, 1, c))
        mask = torch.ones(n, length, device=x.device)
        mask[:, :keep] = 0
        return x, torch.gather(mask, 1, ids_restore), ids_restore

    def forward_encoder(
        self, images: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """Encode the visible patches.

        Args:
            images: (N, C, H, W).
            noise: (N, L) masking noise; drawn when not given.

        Returns:
            The levels' latents (N, 1 + L_visible, C), mask and ids_restore (N, L).
        """
        x = self.patch_embed(images)
        x = x + self.pos_embed[:, 1:]
        x, mask, ids_restore = self.random_masking(x, noise)
        cls_token = self.cls_token + self.pos_embed[:, :1]
        x = torch.cat([cls_token.expand(len(x), -1, -1), x], dim=1)
        latents = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                latents.append(x)
        return [*latents, self.norm(x)], mask, ids_restore

    def forward_decoder(
        self, x: torch.Tensor, ids_restore: torch.Tensor, level: str
    ) -> torch.Tensor:
        """Predict all patches of one level.

        Args:
            x: Latent (N, 1 + L_visible, C).
            ids_restore: (N, L) int64.
            level: Suffix of the level's parameter names.

        Returns:
            Predictions (N, 1 + L, p * p * C_in), class-token row first.
        """
        x = getattr(self, f"decoder_embed{level}")(x)
        n, visible, c = x.shape
        mask_token = getattr(self, f"mask_token{level}")
        mask_tokens = mask_token.repeat(n, ids_restore.shape[1] + 1 - visible, 1)
        patches = torch.cat([x[:, 1:], mask_tokens], dim=1)
        patches = torch.gather(patches, 1, ids_restore.unsqueeze(-1).repeat(1, 1, c))
        x = torch.cat([x[:, :1], patches], dim=1)
        x = x + self.decoder_pos_embed
        for block in getattr(self, f"decoder_blocks{level}"):
            x = block(x)
        x = getattr(self, f"decoder_norm{level}")(x)
        return getattr(self, f"decoder_pred{level}")(x)

    def forward_loss(
        self, pred: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Average the squared error over the removed patches of the batch."""
        loss = ((pred[:, 1:] - target) ** 2).mean(dim=-1)  # (N, L)
        return (loss * mask).sum() / mask.sum()

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor | None = None
    ) -> ReferenceOutput:
        """Compute the loss and all that leads to it.

        Args:
            images: Normalised images (N, C, H, W).
            noise: (N, L) masking noise; drawn when not given.

        Returns:
            Loss, per-level losses, latents, predictions, target and mask.
        """
        latents, mask, ids_restore = self.forward_encoder(images, noise)
        preds = [
            self.forward_decoder(latent, ids_restore, level)
            for latent, level in zip(latents, self.levels, strict=True)
        ]
        target = self.target(images)
        losses = [self.forward_loss(pred, target, mask) for pred in preds]
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        return ReferenceOutput(loss, losses, latents, preds, target, mask, ids_restore)

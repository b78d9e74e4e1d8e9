"""The classification head that learns from labels and from a teacher's logits."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.heads import LinearClsHead
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import is_number

KINDS = ("hard", "soft")


@MODELS.register_module()
class TokenDistillationHead(LinearClsHead):
    """Classifies the mean patch token, and the class token as its teacher does.

    As in MAE-Lite's released code, DeiT's distillation without a token of its own: the
    class token learns the teacher's logits; at test time both logits are averaged. The
    backbone has ``out_type='raw'`` and ``final_norm=False``. (mmpretrain's
    ``DeiTClsHead`` is for a separate distillation token and cannot be trained.)

    References:
        - Training data-efficient image transformers & distillation through attention,
          2020, https://arxiv.org/abs/2012.12877, section 4

    Args:
        num_classes: Number of classes, also of the teacher.
        in_channels: Width of the tokens.
        alpha: Weight of the teacher's loss, from 0 to 1; of the labels' ``1 - alpha``.
        kind: ``'hard'``: cross entropy with the teacher's top-1 class; ``'soft'``:
            divergence from its softened distribution.
        tau: Temperature that softens both, for ``'soft'``.
        norm_cfg: Norm layer of either token.
        **kwargs: Further arguments of mmpretrain's ``LinearClsHead``, such as ``loss``,
            of the labels.

    Raises:
        ValueError: If ``alpha``, ``kind`` or ``tau`` is invalid.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        alpha: float = 0.5,
        kind: str = "hard",
        tau: float = 1.0,
        norm_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_number(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha lies between 0 and 1, got {alpha!r}")
        if kind not in KINDS:
            raise ValueError(f"kind is one of {KINDS}, got {kind!r}")
        if not is_number(tau) or tau <= 0:
            raise ValueError(f"tau is a temperature above 0, got {tau!r}")
        super().__init__(num_classes=num_classes, in_channels=in_channels, **kwargs)
        self.alpha, self.kind, self.tau = alpha, kind, tau
        norm_cfg = norm_cfg or dict(type="LN", eps=1e-6)
        self.norm = build_norm_layer(norm_cfg, in_channels)
        self.norm_dist = build_norm_layer(norm_cfg, in_channels)
        self.fc_dist = nn.Linear(in_channels, num_classes)

    def check_backbone(self, backbone: nn.Module) -> None:
        """Checks that a backbone gives un-normed tokens, a class token first.

        Raises:
            ValueError: If it does not, and what to set.
        """
        out_type = getattr(backbone, "out_type", "raw")
        if out_type != "raw":
            raise ValueError(
                f"{type(self).__name__} reads all tokens, and backbone.out_type="
                f"{out_type!r} gives something else: set backbone.out_type='raw'"
            )
        extra = getattr(backbone, "num_extra_tokens", 0)
        if extra != 1:
            raise ValueError(
                f"{type(self).__name__} teaches one class token, before the patches; "
                f"the {type(backbone).__name__} has {extra}: leave "
                "backbone.with_cls_token at True, or take another head"
            )
        if getattr(backbone, "final_norm", False):
            raise ValueError(
                f"{type(self).__name__} norms both its features itself: set "
                "backbone.final_norm=False"
            )

    def pre_logits(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Normed mean patch token and class token, each (N, C), of (N, 1 + L, C).

        Raises:
            ValueError: If the features are not sequences of tokens.
        """
        tokens = feats[-1]
        if tokens.ndim != 3:
            raise ValueError(
                f"features have shape {tuple(tokens.shape)}, not (N, 1 + L, C): set "
                "backbone.out_type='raw' and backbone.final_norm=False"
            )
        return self.norm(tokens[:, 1:].mean(dim=1)), self.norm_dist(tokens[:, 0])

    def both_logits(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Logits of the patch tokens and of the class token, each (N, classes)."""
        pooled, cls = self.pre_logits(feats)
        return self.fc(pooled), self.fc_dist(cls)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The mean of both logits."""
        logits, logits_dist = self.both_logits(feats)
        return (logits + logits_dist) / 2

    def loss(
        self,
        feats: tuple[Tensor, ...],
        data_samples: list,
        teacher_logits: Tensor,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """The losses of labels and teacher, weighted.

        Args:
            feats: The backbone's tokens.
            data_samples: With labels or, of mixed images, scores.
            teacher_logits: Of the same images, (N, classes).
            **kwargs: For the loss of the labels.
        """
        logits, logits_dist = self.both_logits(feats)
        labels = self._get_loss(logits, data_samples, **kwargs)["loss"]
        return {
            "loss_label": (1 - self.alpha) * labels,
            "loss_teacher": self.alpha * self.teacher_loss(logits_dist, teacher_logits),
        }

    def teacher_loss(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """What the class token learns from the teacher, in float32."""
        logits, teacher_logits = logits.float(), teacher_logits.float()
        if self.kind == "hard":
            return F.cross_entropy(logits, teacher_logits.argmax(dim=1))
        divergence = F.kl_div(
            F.log_softmax(logits / self.tau, dim=1),
            F.log_softmax(teacher_logits / self.tau, dim=1),
            reduction="sum",
            log_target=True,
        )
        return divergence * self.tau**2 / logits.numel()

"""One call on one's own images: pre-train, fine-tune, probe, embed, reconstruct."""

from .finetuning import FineTuned, finetune
from .pretraining import pretrain
from .use import Accuracies, embed, probe, reconstruct

__all__ = [
    "Accuracies",
    "FineTuned",
    "embed",
    "finetune",
    "pretrain",
    "probe",
    "reconstruct",
]

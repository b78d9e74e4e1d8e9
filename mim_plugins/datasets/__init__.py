"""Data sets, samplers and transforms that mmpretrain lacks."""

from .epoch_sampler import EpochSampler
from .seeded_dataset import SeededDataset
from .tracking import TrackingPairs, TrackingSequences
from .transforms import DrawFlip, PackPretrainInputs, TensorRandomResizedCrop
from .unlabelled_images import UnlabelledImages

__all__ = [
    "DrawFlip",
    "EpochSampler",
    "PackPretrainInputs",
    "SeededDataset",
    "TensorRandomResizedCrop",
    "TrackingPairs",
    "TrackingSequences",
    "UnlabelledImages",
]

"""Data sets, samplers and transforms that mmpretrain lacks."""

from .epoch_sampler import EndlessSampler, EpochSampler
from .seeded_dataset import SeededDataset
from .transforms import DrawFlip, PackPretrainInputs, TensorRandomResizedCrop
from .unlabelled_images import UnlabelledImages

__all__ = [
    "DrawFlip",
    "EndlessSampler",
    "EpochSampler",
    "PackPretrainInputs",
    "SeededDataset",
    "TensorRandomResizedCrop",
    "UnlabelledImages",
]

"""Data sets, samplers and transforms that mmpretrain lacks."""

from .class_folders import ClassFolders
from .epoch_sampler import EpochSampler
from .seeded_dataset import SeededDataset
from .transforms import (
    DrawFlip,
    PackPretrainInputs,
    TensorRandomResizedCrop,
    WherePresent,
)
from .unlabelled_images import UnlabelledImages

__all__ = [
    "ClassFolders",
    "DrawFlip",
    "EpochSampler",
    "PackPretrainInputs",
    "SeededDataset",
    "TensorRandomResizedCrop",
    "UnlabelledImages",
    "WherePresent",
]

"""Data sets, samplers and transforms that mmpretrain lacks."""

from .class_folders import ClassFolders
from .epoch_sampler import EndlessSampler, EpochSampler
from .seeded_dataset import SeededDataset
from .tracking import TrackingPairs, TrackingSequences
from .transforms import (
    DrawFlip,
    LoadManyChannels,
    PackPretrainInputs,
    TensorRandomResizedCrop,
    WherePresent,
)
from .unlabelled_images import UnlabelledImages

__all__ = [
    "ClassFolders",
    "DrawFlip",
    "EndlessSampler",
    "EpochSampler",
    "LoadManyChannels",
    "PackPretrainInputs",
    "SeededDataset",
    "TensorRandomResizedCrop",
    "TrackingPairs",
    "TrackingSequences",
    "UnlabelledImages",
    "WherePresent",
]

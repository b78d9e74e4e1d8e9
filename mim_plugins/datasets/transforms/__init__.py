"""Transforms of the fast data path: little work per image, uint8 to the device."""

from .decoded import TakeDecodedImage
from .flip import DrawFlip
from .many_channels import LoadManyChannels
from .pack import PackPretrainInputs
from .present import WherePresent
from .random_resized_crop import TensorRandomResizedCrop

__all__ = [
    "DrawFlip",
    "LoadManyChannels",
    "PackPretrainInputs",
    "TakeDecodedImage",
    "TensorRandomResizedCrop",
    "WherePresent",
]

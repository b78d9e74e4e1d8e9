"""The one-stream tracker."""

from .centre_head import CentreHead
from .data_preprocessor import TrackingDataPreprocessor
from .one_stream import OneStreamTracker
from .one_stream_vit import OneStreamVisionTransformer

__all__ = [
    "CentreHead",
    "OneStreamTracker",
    "OneStreamVisionTransformer",
    "TrackingDataPreprocessor",
]

"""The one-stream tracker."""

from .centre_head import CentreHead
from .data_preprocessor import TrackingDataPreprocessor
from .one_stream import OneStreamTracker
from .one_stream_vit import OneStreamVisionTransformer
from .tracker import Tracker

__all__ = [
    "CentreHead",
    "OneStreamTracker",
    "OneStreamVisionTransformer",
    "Tracker",
    "TrackingDataPreprocessor",
]

"""Hooks: checks, logging and evaluation around the training steps."""

from .accumulation import AccumulationHook
from .data_health import CheckInputHook, CorruptImageHook
from .detection import CheckDetectionHook
from .ema import StepEMAHook, WarmupEMA
from .keep_rate import KeepRateHook
from .non_finite import StopNonFiniteHook
from .progress_bar import ProgressBarHook
from .reconstruction import ReconstructionHook
from .runtime_info import DeferredRuntimeInfoHook
from .segmentation import CheckSegmentationHook
from .throughput import ThroughputHook
from .validation_images import CheckValidationHook

__all__ = [
    "AccumulationHook",
    "CheckDetectionHook",
    "CheckInputHook",
    "CheckSegmentationHook",
    "CheckValidationHook",
    "CorruptImageHook",
    "DeferredRuntimeInfoHook",
    "KeepRateHook",
    "ProgressBarHook",
    "ReconstructionHook",
    "StepEMAHook",
    "StopNonFiniteHook",
    "ThroughputHook",
    "WarmupEMA",
]

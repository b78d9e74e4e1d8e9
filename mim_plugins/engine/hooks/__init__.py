"""Hooks: checks, logging and evaluation around the training steps."""

from ..checks.hooks import CheckDetectionHook, CheckSegmentationHook
from .accumulation import AccumulationHook
from .checkpoint import AtomicCheckpointHook
from .class_pictures import ClassPicturesHook
from .data_health import CheckInputHook, CorruptImageHook
from .ema import StepEMAHook, WarmupEMA
from .keep_rate import KeepRateHook
from .non_finite import StopNonFiniteHook
from .progress_bar import ProgressBarHook
from .reconstruction import ReconstructionHook
from .runtime_info import DeferredRuntimeInfoHook
from .throughput import ThroughputHook
from .validation_images import CheckValidationHook

__all__ = [
    "AccumulationHook",
    "AtomicCheckpointHook",
    "CheckDetectionHook",
    "CheckInputHook",
    "CheckSegmentationHook",
    "CheckValidationHook",
    "ClassPicturesHook",
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

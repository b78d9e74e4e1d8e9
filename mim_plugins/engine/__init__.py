"""Running: launching, hooks, precision and optimisation."""

from .errors import InputError
from .hooks import (
    CheckDetectionHook,
    CheckInputHook,
    CorruptImageHook,
    DeferredRuntimeInfoHook,
    KNNHook,
    ProgressBarHook,
    ReconstructionHook,
    StepEMAHook,
    ThroughputHook,
    WarmupEMA,
)
from .launch import build_runner, load_config, test, train, training_config
from .optimizers import AutocastOptimWrapper, LayerDecayOptimWrapperConstructor

__all__ = [
    "AutocastOptimWrapper",
    "CheckDetectionHook",
    "CheckInputHook",
    "CorruptImageHook",
    "DeferredRuntimeInfoHook",
    "InputError",
    "KNNHook",
    "LayerDecayOptimWrapperConstructor",
    "ProgressBarHook",
    "ReconstructionHook",
    "StepEMAHook",
    "ThroughputHook",
    "WarmupEMA",
    "build_runner",
    "load_config",
    "test",
    "train",
    "training_config",
]

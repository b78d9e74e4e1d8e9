"""Running: launching, hooks, precision and optimisation."""

from .config.print_config import annotated_config
from .errors import InputError
from .hooks import (
    AccumulationHook,
    AtomicCheckpointHook,
    CheckDetectionHook,
    CheckInputHook,
    CheckSegmentationHook,
    CheckValidationHook,
    ClassPicturesHook,
    CorruptImageHook,
    DeferredRuntimeInfoHook,
    ProgressBarHook,
    ReconstructionHook,
    StepEMAHook,
    StopNonFiniteHook,
    ThroughputHook,
    WarmupEMA,
)
from .launch import build_runner, test, train
from .optimizers import AutocastOptimWrapper, LayerDecayOptimWrapperConstructor
from .prepare import load_config, training_config
from .running.loops import ResumableEpochLoop, ResumableIterLoop, WatchedValLoop
from .sharding import shard_transformer_blocks

__all__ = [
    "AccumulationHook",
    "AtomicCheckpointHook",
    "AutocastOptimWrapper",
    "CheckDetectionHook",
    "CheckInputHook",
    "CheckSegmentationHook",
    "CheckValidationHook",
    "ClassPicturesHook",
    "CorruptImageHook",
    "DeferredRuntimeInfoHook",
    "InputError",
    "LayerDecayOptimWrapperConstructor",
    "ProgressBarHook",
    "ReconstructionHook",
    "ResumableEpochLoop",
    "ResumableIterLoop",
    "StepEMAHook",
    "StopNonFiniteHook",
    "ThroughputHook",
    "WarmupEMA",
    "WatchedValLoop",
    "annotated_config",
    "build_runner",
    "load_config",
    "shard_transformer_blocks",
    "test",
    "train",
    "training_config",
]

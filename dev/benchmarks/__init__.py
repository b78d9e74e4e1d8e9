"""Implementations, FLOP formulas and measurements of ``tools/benchmark.py``."""

from .data import run_data
from .hog import run_hog
from .memory import run_memory
from .report import render
from .step import run_step

__all__ = ["render", "run_data", "run_hog", "run_memory", "run_step"]

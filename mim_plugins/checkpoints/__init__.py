"""Checkpoints: conversion between official layouts and ours."""

from .geometry import merge_coordinates_of
from .mae_lite import convert_official
from .on_load import install
from .rules import KeyRules

install()

__all__ = ["KeyRules", "convert_official", "merge_coordinates_of"]

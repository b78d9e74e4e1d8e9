"""Checkpoints: conversion between official layouts and ours."""

from .deepmim import convert_official
from .geometry import merge_coordinates_of
from .rules import KeyRules

__all__ = ["KeyRules", "convert_official", "merge_coordinates_of"]

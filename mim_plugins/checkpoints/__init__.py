"""Checkpoints: conversion between official layouts and ours."""

from . import download, on_load, opening, zoo
from .geometry import merge_coordinates_of
from .mae_lite import convert_official
from .rules import KeyRules

on_load.install()
opening.install()
zoo.install()

__all__ = [
    "KeyRules",
    "convert_official",
    "download",
    "merge_coordinates_of",
    "on_load",
    "opening",
    "zoo",
]

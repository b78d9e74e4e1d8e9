"""Checkpoints: conversion between official layouts and ours."""

from . import download, on_load, opening, zoo
from .convert import convert
from .files import convert_file
from .geometry import merge_coordinates_of
from .rules import KeyRules

on_load.install()
opening.install()
zoo.install()

__all__ = [
    "KeyRules",
    "convert",
    "convert_file",
    "download",
    "merge_coordinates_of",
    "on_load",
    "opening",
    "zoo",
]

"""Checkpoints: conversion between official layouts and ours."""

from .deepmim import convert_official
from .rules import KeyRules

__all__ = ["KeyRules", "convert_official"]

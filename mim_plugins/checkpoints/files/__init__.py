"""Bytes to tensors and back: reading without running code, writing atomically."""

from .atomic import write_atomically
from .reading import Checkpoint, read, read_content
from .writing import check_destination, save_state

__all__ = [
    "Checkpoint",
    "check_destination",
    "read",
    "read_content",
    "save_state",
    "write_atomically",
]

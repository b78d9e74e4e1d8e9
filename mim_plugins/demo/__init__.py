"""``make demo`` and ``mim-plugins demo``."""

from .runs import format_table, run_digits, run_images
from .terminal import announce, quiet

__all__ = ["announce", "format_table", "quiet", "run_digits", "run_images"]

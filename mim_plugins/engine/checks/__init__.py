"""Checks, before the first iteration, that data, model and checkpoint go together.

``data`` is what a set offers: samples as its own pipeline loads them, and metrics;
``classes`` compares the classes of all sets, heads and checkpoint by name; ``boxes``,
``label_maps`` and ``image_sizes`` look into the files; ``hooks`` calls them.
Every check raises a ValueError, or a FileNotFoundError, that names the mismatch and
what to change.
"""

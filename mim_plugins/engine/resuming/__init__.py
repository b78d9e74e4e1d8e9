"""Going on with a run: from which checkpoint, and whether it is the same run."""

"""Videos with one annotated object: their layouts, pairs of frames, transforms."""

from .pairs import TrackingPairs
from .sequences import (
    COCOStills,
    GOT10kSequences,
    LaSOTSequences,
    SequenceSource,
    TrackingNetSequences,
)
from .test_sequences import TrackingSequences
from .transforms import CropPair, PackPair

__all__ = [
    "COCOStills",
    "CropPair",
    "GOT10kSequences",
    "LaSOTSequences",
    "PackPair",
    "SequenceSource",
    "TrackingNetSequences",
    "TrackingPairs",
    "TrackingSequences",
]

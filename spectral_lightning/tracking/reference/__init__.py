"""The reference data of a run, and their classes."""

from spectral_lightning.tracking.reference.classes import Classes, check_null_class, find_classes, num_labels
from spectral_lightning.tracking.reference.reference import ReferenceReader
from spectral_lightning.tracking.reference.source import find_data

__all__ = ["Classes", "ReferenceReader", "check_null_class", "find_classes", "find_data", "num_labels"]

"""The plain way to compute the methods, to compare the fast code against."""

from .mae import ReferenceMAE, ReferenceOutput

__all__ = ["ReferenceMAE", "ReferenceOutput"]

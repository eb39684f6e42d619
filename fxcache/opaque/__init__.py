"""Submodules that torch.export cannot trace: an operator in the graph calls each as it is."""

from fxcache.opaque.call import OpaqueCall, Weight, described
from fxcache.opaque.operator import call_of, operator
from fxcache.opaque.structure import TENSOR, Flat, ResultTensor, Size

__all__ = [
    "TENSOR",
    "Flat",
    "OpaqueCall",
    "ResultTensor",
    "Size",
    "Weight",
    "call_of",
    "described",
    "operator",
]

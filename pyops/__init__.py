"""Kernels, ops and layers that replace the float layers of a PyTorch model."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from . import backends, isa, nn, ops
from .explain import Report, explain
from .fuse import fuse
from .serialize import load, save

if TYPE_CHECKING:
    from .prune import CallablePackage as _Prune
    from .quantize.quantize import quantize

    prune: _Prune
else:
    from . import prune, quantize  # callable packages; see their docstrings

try:
    __version__ = version("torch-pyops")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Report",
    "__version__",
    "backends",
    "explain",
    "fuse",
    "isa",
    "load",
    "nn",
    "ops",
    "prune",
    "quantize",
    "save",
]

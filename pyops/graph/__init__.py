"""Fusing around int8 layers: activations, residual sums and sibling layers, found by tracing.

``fuse_layers(model)`` looks at each module that calls int8 layers itself, traces its forward one
level deep (``trace.py``), rewrites what ``patterns.py`` finds, and lets the module run the result
(``forward.py``). Modules keep their class, their parts and their names; a module that cannot be
traced keeps its forward, with the reason.
"""

from .forward import GraphForward, graph_of
from .fuse import Fusion, fuse_layers, fusions_of

__all__ = ["Fusion", "GraphForward", "fuse_layers", "fusions_of", "graph_of"]

"""Fusing int8 layers with what stands between them, norms and sums, found by tracing.

``fuse_layers(model)`` looks at each module that calls int8 layers itself. If its forward is simple
code (``simple_code.py``), it is traced one level deep (``trace.py``); ``patterns.py`` and
``regions.py`` rewrite the graph, and the module runs the result for as long as nothing that the
code reads has changed (``forward.py``). Modules keep their class, their parts and their names; one
whose forward is not so simple keeps it, with the reason. With an example of its inputs, the whole
model may become one graph (``export.py``), for calls like the example.
"""

from .forward import GraphForward, graph_of
from .fuse import Fusion, captured_of, fuse_layers, fusions_of

__all__ = ["Fusion", "GraphForward", "captured_of", "fuse_layers", "fusions_of", "graph_of"]

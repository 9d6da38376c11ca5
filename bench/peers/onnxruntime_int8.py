"""ONNX Runtime: the exported model in int8, weights by channel; convnets static, others dynamic."""

from __future__ import annotations

import onnxruntime_runs
from case import Call, Case

NAME = "onnxruntime int8"
KINDS = ("linear", "model", "model pruned int8", "convnet int8", "convnet pruned int8")
SLOW = True
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a run of the session; the output is read where it lies."""
    static = case.kind.startswith("convnet")
    return onnxruntime_runs.make(
        case, onnxruntime_runs.static_int8 if static else onnxruntime_runs.dynamic_int8
    )

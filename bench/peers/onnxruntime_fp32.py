"""ONNX Runtime: the exported float model."""

from __future__ import annotations

import onnxruntime_runs
from case import Call, Case

NAME = "onnxruntime fp32"
KINDS = ("convnet fp32", "convnet pruned", "model pruned")
SLOW = True
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a run of the session."""
    return onnxruntime_runs.make(case, onnxruntime_runs.as_it_is)

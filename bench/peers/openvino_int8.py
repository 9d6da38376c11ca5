"""OpenVINO: NNCF's int8 of the model, fp32 between the int8 layers."""

from __future__ import annotations

import openvino_runs
from case import Call, Case

NAME = "openvino int8"
KINDS = ("linear", "model", "model pruned int8", "convnet int8", "convnet pruned int8")
SLOW = True
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a request of the calibrated model."""
    return openvino_runs.make(case, "f32")

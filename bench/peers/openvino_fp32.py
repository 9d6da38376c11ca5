"""OpenVINO: the float model."""

from __future__ import annotations

import openvino_runs
from case import Call, Case

NAME = "openvino fp32"
KINDS = ("convnet fp32",)
SLOW = True
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a request of the model in fp32."""
    return openvino_runs.make_float(case, "f32")

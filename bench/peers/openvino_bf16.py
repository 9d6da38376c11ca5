"""OpenVINO: the float model in bf16."""

from __future__ import annotations

import openvino_runs
from case import Call, Case

NAME = "openvino bf16"
KINDS = ("convnet bf16",)
SLOW = True
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a request of the model in bf16; inputs and outputs stay fp32."""
    return openvino_runs.make_float(case, "bf16")

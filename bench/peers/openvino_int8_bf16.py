"""OpenVINO: NNCF's int8 of the model, bf16 between the int8 layers."""

from __future__ import annotations

import openvino_runs
from case import Call, Case

NAME = "openvino int8 bf16"
KINDS = ("linear", "model")
SLOW = True
OWN_THREADS = True


def make(case: Case) -> Call:
    """Return a request of the calibrated model."""
    return openvino_runs.make(case, "bf16")

"""torch's float Linear, or the float model as it is, in eager mode."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case

NAME = "torch fp32"
KINDS = ("linear", "model")
SLOW = False


def make(case: Case) -> Call:
    """Return ``F.linear`` or the model on the case's inputs."""
    if case.kind == "model":
        model, inputs = case.model, case.inputs
        return lambda: model(*inputs)
    x, weight, bias = (case.tensors[name] for name in ("x", "weight", "bias"))
    return lambda: F.linear(x, weight, bias)

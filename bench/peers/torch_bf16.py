"""torch in bf16: inputs, weights and outputs; no cast is timed."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from case import Call, Case

NAME = "torch bf16"
KINDS = ("linear", "sparse_linear bf16", "model", "convnet bf16")
SLOW = False


def make(case: Case) -> Call:
    """Return ``F.linear`` or the model in bf16."""
    if case.model is not None:
        model = copy.deepcopy(case.model).to(torch.bfloat16)
        inputs = [x.bfloat16() if x.is_floating_point() else x for x in case.inputs]
        return lambda: model(*inputs)
    x, weight, bias = (case.tensors[name].bfloat16() for name in ("x", "weight", "bias"))
    return lambda: F.linear(x, weight, bias)

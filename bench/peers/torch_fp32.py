"""torch's float Linear or convolution, or the float model as it is, in eager mode."""

from __future__ import annotations

import torch.nn.functional as F
from case import Call, Case
from conv_cases import float_call

NAME = "torch fp32"
KINDS = (
    "linear",
    "sparse_linear",
    "model",
    "static_conv",
    "convnet int8",
    "convnet fp32",
    "convnet bf16",
    "convnet pruned",
    "convnet pruned int8",
    "model pruned",
    "model pruned int8",
)
SLOW = False
FLOAT = True


def make(case: Case) -> Call:
    """Return ``F.linear``, the convolution with its epilogue, or the model on the inputs."""
    if case.model is not None:
        model, inputs = case.model, case.inputs
        return lambda: model(*inputs)
    if case.layer is not None:
        return float_call(case)
    x, weight, bias = (case.tensors[name] for name in ("x", "weight", "bias"))
    return lambda: F.linear(x, weight, bias)

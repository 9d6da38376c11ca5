"""What the torch.ao peers share; they differ in the engine that packs the weights."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError, as_model

from pyops.testing import torch_dynamic

KINDS = ("linear", "model")


def make(case: Case, engine: str) -> Call:
    """Return the dynamic int8 Linear (as the op, without the module around it) or model.

    Raises:
        UnavailableError: this torch has no torch.ao quantization or not this engine.
    """
    model, inputs = as_model(case)
    try:
        quantized = torch_dynamic.quantize(model, engine)
    except torch_dynamic.UnavailableError as error:
        raise UnavailableError(str(error)) from error
    if case.kind == "model":
        return lambda: quantized(*inputs)
    packed = quantized[0]._packed_params._packed_params
    (x,) = inputs
    # reduce_range=True is what the module passes.
    return lambda: torch.ops.quantized.linear_dynamic(x, packed, reduce_range=True)

"""What the torch.ao peers share; they differ in the engine that packs the weights."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError, as_model

from pyops.testing import torch_dynamic

KINDS = ("linear", "static_linear", "model")


def make(case: Case, engine: str) -> Call:
    """Return the int8 Linear (as the op, without the module around it) or the dynamic int8 model.

    Raises:
        UnavailableError: this torch has no torch.ao quantization or not this engine.
    """
    try:
        return make_static(case, engine) if case.static else make_dynamic(case, engine)
    except torch_dynamic.UnavailableError as error:
        raise UnavailableError(str(error)) from error


def make_dynamic(case: Case, engine: str) -> Call:
    """Return the Linear or model that quantizes its input as it comes."""
    model, inputs = as_model(case)
    quantized = torch_dynamic.quantize(model, engine)
    if case.kind == "model":
        return lambda: quantized(*inputs)
    packed = quantized[0]._packed_params._packed_params
    (x,) = inputs
    # reduce_range=True is what the module passes.
    return lambda: torch.ops.quantized.linear_dynamic(x, packed, reduce_range=True)


def make_static(case: Case, engine: str) -> Call:
    """Return the Linear from a quantized tensor to a quantized tensor."""
    scales = case.static
    assert scales is not None
    x, weight, bias = (case.tensors[name] for name in ("x", "weight", "bias"))
    with torch_dynamic.packing_for(engine):
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(weight, scales.scale_w, zeros, 0)
        packed = torch.ops.quantized.linear_prepack(quantized, bias)
        qx = torch._make_per_tensor_quantized_tensor(x, scales.scale_x, scales.zero_point_x)
    linear = torch.ops.quantized.linear_relu if scales.relu else torch.ops.quantized.linear
    scale, zero_point = scales.scale_out, scales.zero_point_out
    return lambda: linear(qx, packed, scale, zero_point)

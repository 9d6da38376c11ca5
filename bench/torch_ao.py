"""What the torch.ao peers share; they differ in the engine that packs the weights."""

from __future__ import annotations

import torch
from case import Call, Case, UnavailableError, as_model
from torch import Tensor

from pyops.testing import torch_dynamic

KINDS = ("linear", "static_linear", "static_conv", "model")


def make(case: Case, engine: str) -> Call:
    """Return the int8 Linear (as the op, without the module around it) or the dynamic int8 model.

    Raises:
        UnavailableError: this torch has no torch.ao quantization or not this engine.
    """
    try:
        if case.layer is not None:
            return make_conv(case, engine)
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


def make_conv(case: Case, engine: str) -> Call:
    """Return the convolution from a quantized tensor to a quantized tensor.

    ReLU6 is ReLU where the codes end at 6, as those of the case do.

    Raises:
        UnavailableError: the engine cannot add a residual.
    """
    scales, layer = case.static, case.layer
    assert scales is not None
    assert layer is not None
    if layer.residual and engine != "onednn":
        raise UnavailableError(f"engine {engine} has no convolution with a sum")
    x, weight = case.tensors["x"], case.tensors["weight"]
    with torch_dynamic.packing_for(engine):
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(weight, scales.scale_w, zeros, 0)
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        packed = torch.ops.quantized.conv2d_prepack(quantized, case.tensors["bias"], *geometry)
        qx = torch._make_per_tensor_quantized_tensor(x, scales.scale_x, scales.zero_point_x)
    scale, zero_point = scales.scale_out, scales.zero_point_out
    name = "conv2d" + "_add" * layer.residual + "_relu" * (layer.activation != "none")
    run = getattr(torch.ops.quantized, name)
    if not layer.residual:
        return lambda: run(qx, packed, scale, zero_point)
    added = torch._make_per_tensor_quantized_tensor(
        case.tensors["residual"], scales.scale_residual, scales.zero_point_residual
    )

    def call() -> Tensor:
        # This one asks for torch's engine of the moment. Setting it takes a microsecond.
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, engine
        try:
            out: Tensor = run(qx, added, packed, scale, zero_point)
        finally:
            torch.backends.quantized.engine = before
        return out

    return call

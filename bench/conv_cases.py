"""One int8 convolution as a case: uint8 in, uint8 out, and the same layer in float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from case import Call, Case, StaticScales, WrongResultError, sqnr_db
from conv_layers import ConvLayer
from products import PEER_SQNR_DB, TORCH_AO, expect_equal, expect_like, expect_within_steps
from torch import Tensor

from pyops import ops

STEM = "int8_conv_relu"
# As in int8_static: with more, kernels of torch without VNNI saturate their int16 sums.
X_CODES = 128
# Peers multiply the scales before the sums, in another order, so a tie may round the other way.
PEER_STEPS = 1
IMAGE_ZERO_POINT = 114  # of codes of images, whose values have both signs; after a ReLU it is 0
RELU6_SCALE = 6 / 255  # the codes end where the activation does
RIVALS = {"int8 convolutions": (*TORCH_AO, "openvino conv int8")}


def conv(layer: ConvLayer) -> Case:
    """The layer with random weights; codes of the input, the residual and the output are uint8."""
    generator = torch.Generator().manual_seed(0)

    def codes(shape: tuple[int, ...]) -> Tensor:
        drawn = torch.randint(0, X_CODES, shape, generator=generator, dtype=torch.uint8)
        return drawn.contiguous(memory_format=torch.channels_last)

    fan_in = torch.Size(layer.weight_shape[1:]).numel()
    real = torch.randn(layer.channels, fan_in, generator=generator) / fan_in**0.5
    weight, scale_w = ops.quantize_weight(real)
    tensors = {
        "x": codes(layer.shape),
        "weight": weight.view(layer.weight_shape),
        "bias": torch.randn(layer.channels, generator=generator),
    }
    if layer.residual:
        tensors["residual"] = codes(layer.out_shape)
    scales = StaticScales(
        scale_x=0.03,
        zero_point_x=IMAGE_ZERO_POINT if layer.shape[1] == 3 else 0,
        scale_w=scale_w,
        scale_out=RELU6_SCALE if layer.activation == "relu6" else 0.05,
        zero_point_out=120 if layer.activation == "none" else 0,
        relu=layer.activation == "relu",
        scale_residual=0.04,
    )
    case = Case(
        kind="static_conv",
        op=STEM,
        name=f"{STEM} {layer.name}",
        operations=2.0 * layer.macs,
        bytes_moved=float(layer.elements),
        make_ours=lambda: ours(layer, tensors, scales),
        check_ours=lambda result: expect_same(expect_equal, result, expected(layer, case)),
        check_peer=lambda result: check_peer(result, expected(layer, case), scales),
        tensors=tensors,
        static=scales,
        layer=layer,
        rivals=RIVALS,
    )
    return case


def ours(layer: ConvLayer, tensors: dict[str, Tensor], scales: StaticScales) -> Call:
    """Return the call of our op; packing is not in it."""
    packed = ops.int8_conv_pack(tensors["weight"], layer.groups)
    options: dict[str, Any] = activation_of(layer)
    if layer.residual:
        options["residual"] = tensors["residual"]
        options["residual_scale"] = scales.scale_residual
        options["residual_zero_point"] = scales.zero_point_residual
    return lambda: ops.int8_conv_relu(
        tensors["x"],
        packed,
        layer.weight_shape,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        scale_x=scales.scale_x,
        zero_point_x=scales.zero_point_x,
        scale_w=scales.scale_w,
        bias=tensors["bias"],
        out_dtype=torch.uint8,
        out_scale=scales.scale_out,
        out_zero_point=scales.zero_point_out,
        **options,
    )


def activation_of(layer: ConvLayer) -> dict[str, Any]:
    """Return the activation as our ops take it."""
    if layer.activation == "relu6":
        return {"activation": "clamp", "low": 0.0, "high": 6.0}
    return {"activation": layer.activation}


def convolved(layer: ConvLayer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return torch's convolution with the geometry of ``layer``."""
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.conv2d(x, weight, bias, *geometry)


def activated(layer: ConvLayer, out: Tensor) -> Tensor:
    """Return ``out`` after the activation, in place."""
    if layer.activation == "relu6":
        return out.clamp_(0, 6)
    return out.relu_() if layer.activation == "relu" else out


def expected(layer: ConvLayer, case: Case) -> Tensor:
    """Return the codes by the formula: exact sums in fp64, then fp32 step by step."""
    scales, tensors = case.static, case.tensors
    assert scales is not None
    x = tensors["x"].double() - scales.zero_point_x
    out = convolved(layer, x, tensors["weight"].double()).float()
    out = out * torch.tensor(scales.scale_x) * scales.scale_w[:, None, None]
    out += tensors["bias"][:, None, None]
    if layer.residual:
        added = tensors["residual"].float() - scales.zero_point_residual
        out += added * torch.tensor(scales.scale_residual)
    steps = activated(layer, out) * (1 / torch.tensor(scales.scale_out))
    return (steps.round() + scales.zero_point_out).clamp(0, 255).to(torch.uint8)


def expect_same(compare: Callable[..., None], result: Tensor, wanted: Tensor, *more: Any) -> None:
    """Compare as matrices with a row per position and a column per channel."""
    expect_like(result, wanted)
    rows = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (result, wanted))
    compare(*rows, *more)


def check_peer(result: Tensor, wanted: Tensor, scales: StaticScales) -> None:
    """Raise WrongResultError unless codes are within a step, and floats close to what they mean."""
    if result.is_quantized:
        result = result.int_repr()
    if not result.is_floating_point():
        expect_same(expect_within_steps, result, wanted, PEER_STEPS)
        return
    steps = result.float() / scales.scale_out + scales.zero_point_out
    found = sqnr_db(steps.clamp(0, 255), wanted)
    if not found >= PEER_SQNR_DB:
        raise WrongResultError(f"SQNR is {found:.1f} dB, expected at least {PEER_SQNR_DB} dB")


def in_float(case: Case) -> dict[str, Tensor]:
    """Return the tensors of the layer as fp32 values, channels_last."""
    scales, tensors = case.static, case.tensors
    assert scales is not None
    values = {
        "x": (tensors["x"].float() - scales.zero_point_x) * scales.scale_x,
        "weight": tensors["weight"].float() * scales.scale_w[:, None, None, None],
    }
    if "residual" in tensors:
        added = tensors["residual"].float() - scales.zero_point_residual
        values["residual"] = added * scales.scale_residual
    values = {k: v.contiguous(memory_format=torch.channels_last) for k, v in values.items()}
    return {**values, "bias": tensors["bias"]}


def float_call(case: Case) -> Call:
    """Return torch's float layer: convolution with bias, sum, activation."""
    layer, tensors = case.layer, in_float(case)
    assert layer is not None

    def call() -> Tensor:
        out = convolved(layer, tensors["x"], tensors["weight"], tensors["bias"])
        if layer.residual:
            out += tensors["residual"]
        return activated(layer, out)

    return call

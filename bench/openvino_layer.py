"""One convolution as OpenVINO runs it inside an int8 net, without what a net has around it.

Input and output are uint8 tensors [N, H, W, C], read and written where they lie. The graph says:
codes to values (a FakeQuantize without effect, since OpenVINO looks for these), weights from int8
codes, convolution, bias, activation, and values to codes. OpenVINO makes one int8 kernel of that,
which is checked. A request costs some microseconds beside the kernel, and they are timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino_runs
import torch
from case import Call, Case, UnavailableError, require
from torch import Tensor

LEVELS = 256


def make(case: Case) -> Call:
    """Return a request of the layer.

    Raises:
        UnavailableError: OpenVINO is absent, or does not run the layer as one int8 kernel.
    """
    require(openvino_runs.PACKAGES[:1])
    layer = case.layer
    assert layer is not None
    if layer.residual:
        raise UnavailableError("it fuses a sum only where it may overwrite what is added")
    import openvino

    x = case.tensors["x"].permute(0, 2, 3, 1).contiguous()
    compiled = openvino_runs.compiled(graph(case), (x,), "f32")
    expect_one_kernel(compiled)
    request = compiled.create_infer_request()
    n, channels, high, wide = layer.out_shape
    out = torch.empty(n, high, wide, channels, dtype=torch.uint8)
    request.set_input_tensor(0, openvino.Tensor(x.numpy(), shared_memory=True))
    request.set_output_tensor(0, openvino.Tensor(out.numpy(), shared_memory=True))
    # What the call returns has the shape of the others' results and lies where OpenVINO writes.
    result = out.permute(0, 3, 1, 2)

    def call() -> Tensor:
        # The binding's own, without the dictionary of results that infer() builds.
        request.start_async()
        request.wait()
        return result

    return call


def graph(case: Case) -> Any:
    """Return the ``openvino.Model`` of the layer."""
    import openvino
    from openvino import opset13 as ov

    layer, scales = case.layer, case.static
    assert layer is not None
    assert scales is not None

    def number(value: float) -> Any:
        return ov.constant(np.float32(value))

    n, c, high, wide = layer.shape
    parameter = ov.parameter([n, high, wide, c], np.uint8)
    values = ov.transpose(ov.convert(parameter, "f32"), np.array([0, 3, 1, 2]))
    low = -scales.zero_point_x * scales.scale_x
    top = low + (LEVELS - 1) * scales.scale_x
    ends = (number(0), number(LEVELS - 1), number(low), number(top))
    out = multiplied(case, ov.fake_quantize(values, *ends, LEVELS))
    out = ov.add(out, ov.constant(case.tensors["bias"].numpy()[None, :, None, None]))
    if layer.activation == "relu":
        out = ov.relu(out)
    elif layer.activation == "relu6":
        out = ov.clamp(out, 0.0, 6.0)
    low = -scales.zero_point_out * scales.scale_out
    top = low + (LEVELS - 1) * scales.scale_out
    ends = (number(low), number(top), number(0), number(LEVELS - 1))
    codes = ov.convert(ov.fake_quantize(out, *ends, LEVELS), "u8")
    return openvino.Model([ov.transpose(codes, np.array([0, 2, 3, 1]))], [parameter])


def multiplied(case: Case, values: Any) -> Any:
    """Return the convolution of ``values`` with the int8 weights times their scales."""
    from openvino import opset13 as ov

    layer, scales = case.layer, case.static
    assert layer is not None
    assert scales is not None
    groups, channels = layer.groups, layer.channels
    shape = list(layer.weight_shape)
    if groups > 1:
        shape = [groups, channels // groups, *shape[1:]]
    codes = ov.constant(case.tensors["weight"].reshape(shape).numpy())
    per_channel = [1 if axis else size for axis, size in enumerate(shape)]
    if groups > 1:
        per_channel[1] = channels // groups
    scale = ov.constant(scales.scale_w.reshape(per_channel).numpy())
    weight = ov.multiply(ov.convert(codes, "f32"), scale)
    pads = list(layer.padding)
    geometry = (list(layer.stride), pads, pads, list(layer.dilation))
    product = ov.group_convolution if groups > 1 else ov.convolution
    return product(values, weight, *geometry)


def expect_one_kernel(compiled: Any) -> None:
    """Raise UnavailableError unless what runs is one convolution, in int8."""
    ran = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind, kernel = (str(facts[k].astype(str)) for k in ("layerType", "primitiveType"))
        if kind not in ("Input", "Output", "Parameter", "Result", "Const", "Constant"):
            ran.append((kind, kernel))
    if [kernel.endswith("I8") for kind, kernel in ran if "Convolution" in kind] != [True]:
        raise UnavailableError(f"OpenVINO runs it otherwise: {ran}")

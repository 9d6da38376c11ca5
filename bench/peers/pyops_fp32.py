"""Our own float convolution of the same layer: what int8 has to beat."""

from __future__ import annotations

from case import Call, Case
from conv_cases import activation_of, in_float

from pyops import ops

NAME = "pyops fp32"
KINDS = ("static_conv",)
SLOW = False
FLOAT = True


def make(case: Case) -> Call:
    """Return ``conv_relu`` on the values that the codes stand for."""
    layer, tensors = case.layer, in_float(case)
    assert layer is not None
    packed = ops.conv_relu_pack(tensors["weight"].contiguous(), layer.groups)
    return lambda: ops.conv_relu(
        tensors["x"],
        packed,
        layer.weight_shape,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        bias=tensors["bias"],
        residual=tensors.get("residual"),
        **activation_of(layer),
    )

"""Our own float convolution of the same layer, as ``fuse`` runs it: what int8 has to beat."""

from __future__ import annotations

import torch
from case import Call, Case
from conv_cases import activation_of, in_float

from pyops import ops
from pyops.ops.conv_relu import faster_algorithm

NAME = "pyops fp32"
KINDS = ("static_conv",)
SLOW = False
FLOAT = True


def make(case: Case) -> Call:
    """Return ``conv_relu`` on the values that the codes stand for."""
    layer, tensors = case.layer, in_float(case)
    assert layer is not None
    algorithm = faster_algorithm(
        layer.weight_shape, torch.float32, layer.stride, layer.dilation, layer.groups
    )
    packed = ops.conv_relu_pack(tensors["weight"].contiguous(), layer.groups, algorithm)
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

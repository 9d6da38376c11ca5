"""Our own product or net without sparse kernels: what pruning has to beat."""

from __future__ import annotations

from case import Call, Case

import pyops
from pyops import ops

NAME = "pyops dense"
KINDS = ("convnet pruned", "model pruned", "sparse_linear", "sparse_linear bf16")
SLOW = False


def make(case: Case) -> Call:
    """Return the call of ``fuse``'s model or layer, which multiplies with the zeros too."""
    if case.model is None:
        x, weight, bias = (case.tensors[name] for name in ("x", "weight", "bias"))
        packed = ops.conv_relu_pack(weight[..., None, None])
        image, shape = x[..., None, None], [*weight.shape, 1, 1]
        return lambda: ops.conv_relu(image, packed, shape, bias=bias).flatten(1)
    model = pyops.fuse(case.model, example_inputs=case.inputs)
    return lambda: model(*case.inputs)

"""``conv_relu`` as users and torch meet it: arguments, fakes, compile and export."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyops import backends, ops
from pyops.ops import conv_relu_packing as packing
from pyops.testing.cases.conv_relu import DTYPES, conv_case
from pyops.testing.compare import assert_same


def test_the_plain_layout_goes_there_and_back() -> None:
    for dtype in DTYPES:
        weight = torch.randn(6, 2, 3, 1).to(dtype)
        header, back = packing.unpack_plain(packing.pack_plain(weight, 3))
        assert (header.shape, header.groups, header.dtype) == ((6, 2, 3, 1), 3, dtype)
        assert_same(back, weight, "plain")
        if backends.compiled():
            assert_same(
                ops.conv_relu_unpack(packing.pack_plain(weight, 3), weight.shape, dtype),
                weight,
                "plain by the compiled op",
            )


def test_forms_of_padding() -> None:
    x, weight = torch.randn(1, 3, 9, 8), torch.randn(4, 3, 4, 3)
    packed = ops.conv_relu_pack(weight)
    for padding, dilation in ((2, 1), ((1, 2), 1), ("same", (2, 1))):
        like = F.conv2d(x, weight, None, 1, padding, dilation)
        out = ops.conv_relu(x, packed, weight.shape, padding=padding, dilation=dilation)
        assert torch.allclose(out, like, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_schema_and_fake_agree_with_the_kernels(dtype: torch.dtype) -> None:
    for seed in range(6):
        case = conv_case(seed, dtype)
        shape = list(case.weight.shape)
        pack = torch.ops.pyops.conv_relu_pack.default
        torch.library.opcheck(pack, (case.weight, case.groups, 0))
        code = packing.WEIGHT_DTYPES.index(dtype)
        torch.library.opcheck(torch.ops.pyops.conv_relu_unpack.default, (case.pack(), shape, code))
        torch.library.opcheck(
            torch.ops.pyops.conv_relu.default,
            (case.x, case.pack(), shape, list(case.stride), list(case.padding),
             list(case.dilation), case.bias, case.residual, 5, 0.0, 6.0, None),
        )  # fmt: skip


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("packed", ops.conv_relu_pack(torch.randn(8, 6, 3, 3)))

    def forward(self, x: Tensor) -> Tensor:
        y = ops.conv_relu(x * 2, self.packed, [8, 6, 3, 3], padding=1, activation="relu")
        return F.max_pool2d(y, 2) + 1


def test_compile_and_export_without_a_graph_break() -> None:
    model, x = Block(), torch.randn(2, 6, 8, 8)
    with torch.inference_mode():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_same(compiled(x), model(x), "compiled")
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
    assert_same(exported.module()(x), model(x), "exported")
    assert "pyops.conv_relu.default" in {str(node.target) for node in exported.graph.nodes}

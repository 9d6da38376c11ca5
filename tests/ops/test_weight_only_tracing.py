"""The weight-only ops under torch.library.opcheck and torch.compile."""

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.testing.cases.weight_only import weight_case


@pytest.mark.parametrize("kind", [0, 2, 5])
def test_opcheck(kind: int) -> None:
    case = weight_case(2, 3, 20, 70, kind)
    tail = (case.bias, case.residual, 1, 0)
    test = torch.library.opcheck
    if kind == 0:
        packed = case.pack()
        test(torch.ops.pyops.int8_weight_pack.default, (case.codes,))
        test(torch.ops.pyops.int8_weight_unpack.default, (packed, 20, 70))
        test(torch.ops.pyops.int8_weight_linear.default, (case.x, packed, case.scale, *tail))
        return
    packed, size = case.pack(), case.group_size
    test(torch.ops.pyops.int4_pack.default, (case.codes, case.scale, case.zero, size))
    test(torch.ops.pyops.int4_unpack.default, (packed, 20, 70, size, case.zero is not None))
    test(torch.ops.pyops.int4_linear.default, (case.x, packed, 20, *tail))


def test_compile_has_no_graph_break() -> None:
    int8, int4 = weight_case(2, 3, 20, 70, 0), weight_case(2, 3, 70, 20, 4)
    first, second = int8.pack(), int4.pack()

    def both(x: Tensor) -> Tensor:
        hidden = ops.int8_weight_linear(x, first, int8.scale, activation="silu")
        return ops.int4_linear(hidden, second, 70)

    x = int8.x.float()
    compiled = torch.compile(both, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), both(x))

"""Refusals, tracing and the reference of sparse int8 weights."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from pyops import backends, ops
from pyops.ops import int8_conv_relu_reference, int8_gemm_reference, sparse_gemm_reference
from pyops.ops.int8_sparse_gemm import OP, codes_kernel, codes_layout
from pyops.testing.cases.int8_gemm import random_codes
from pyops.testing.cases.sparse_gemm import masked

WEIGHT = torch.eye(6, 8, dtype=torch.int8) * 5
PACKED = ops.sparse_pack(WEIGHT)
A = torch.ones(3, 8, dtype=torch.uint8)
X = torch.ones(3, 8)
IMAGE = torch.ones(1, 8, 2, 2, dtype=torch.uint8)
CONV = WEIGHT[..., None, None].repeat(1, 1, 3, 3)
FLOAT = ops.sparse_pack(WEIGHT.float())


def test_the_kernel_is_told() -> None:
    rows = {row.name: row for row in backends.implementations(OP)}
    assert codes_layout() == rows[codes_kernel()].layout
    assert rows[codes_kernel()].available


def test_a_level_has_its_kernel(isa: str) -> None:
    expected = {"avx512": "avx2", "avx512bf16": "avx512vbmi2", "amx": "avx512vbmi2"}.get(isa, isa)
    assert codes_kernel() == expected
    out = ops.int8_gemm(A, ops.sparse_pack(WEIGHT), 6)
    assert torch.equal(out, A.float() @ WEIGHT.float().T)


def refusals() -> list[tuple[str, Any, str]]:
    scale = torch.ones(6)
    return [
        ("float weight", lambda: ops.int8_gemm(A, FLOAT, 6),
         "int8_gemm: the packed sparse weight must be torch.int8"),
        ("float weight", lambda: ops.int8_conv_relu(IMAGE, FLOAT, (6, 8, 1, 1)),
         "the packed sparse weight must be torch.int8"),
        ("a convolution's", lambda: ops.int8_gemm(A, ops.sparse_pack(CONV), 6),
         "int8_gemm: the packed sparse weight is [6, 8, 3, 3] of 1 groups, a convolution's; a "
         "product takes [N, K]"),
        ("n", lambda: ops.int8_gemm(A, PACKED, 5),
         "int8_gemm: the packed weight has 6 output channels, but n is 5"),
        ("k", lambda: ops.int8_linear(X[:, :7], PACKED, scale),
         "int8_linear: the packed weight has K = 8, but the input's last dimension is 7"),
        ("shape", lambda: ops.int8_conv_relu(IMAGE, PACKED, (6, 8, 1, 2)),
         "the packed weight is [6, 8, 1, 1], but weight_shape is [6, 8, 1, 2]"),
        ("channels", lambda: ops.int8_conv_relu(IMAGE[:, :4], PACKED, (6, 8, 1, 1)),
         "x has 4 channels, but the weight takes 8"),
        ("unpack", lambda: ops.int8_unpack(PACKED, 6, 8),
         "packed weight: a sparse one, which this op does not take"),
        ("float op", lambda: ops.sparse_linear(X, PACKED, 6),
         "the packed weight is torch.int8, which goes with x of the same dtype"),
        ("dtype", lambda: ops.sparse_unpack(PACKED, [6, 8]),
         "the packed weight is torch.int8"),
        ("depth", lambda: ops.sparse_pack(torch.zeros(1, 65537, dtype=torch.int8)),
         "sparse_pack: KH * KW * C / groups is 65537, but at most 65536 is exact in int32"),
    ]  # fmt: skip


@pytest.mark.parametrize("at", range(len(refusals())))
def test_refusals(at: int) -> None:
    _, call, told = refusals()[at]
    with pytest.raises((RuntimeError, ValueError), match=re.escape(told)):
        call()


def test_row_programs_refuse_a_sparse_weight() -> None:
    program = ops.RowProgram(1)
    program.returns(program.linear(0, bias=False))
    told = "packed weight: a sparse one, which this op does not take"
    with pytest.raises((RuntimeError, ValueError), match=told):
        ops.int8_rows(program, [X], [PACKED, torch.ones(6)])


def test_a_weight_for_another_kernel_is_refused(isa: str) -> None:
    told = rf"packed as {codes_layout()}, but kernel \w+ takes .*; pack it again"
    packed = ops.sparse_pack(WEIGHT)
    other = next(r for r in backends.implementations(OP) if r.layout != codes_layout())
    with backends.force(OP, other.name), pytest.raises(RuntimeError, match=told):
        ops.int8_gemm(A, packed, 6)


def test_in_a_net(isa: str) -> None:
    """A convolution and a linear layer of ``run_net`` take a sparse weight."""
    program = ops.NetProgram(inputs=1)
    out = (torch.uint8, 1.0, 3)
    y = program.conv(0, (0.5, 2), [6, 8, 3, 3], padding=[1, 1, 1, 1], bias=False, out=out)
    y = program.flatten(y)
    program.returns(program.linear(y, (1.0, 3), 6, bias=False))
    rng = torch.Generator().manual_seed(0)
    linear = masked(random_codes(rng, 6, 24, True, 0), 0.3, 1, 0)
    image = random_codes(rng, 2 * 8, 4, False, 0).reshape(2, 8, 2, 2)
    scale = torch.ones(6)
    dense = [ops.int8_conv_pack(CONV), scale, ops.int8_pack(linear), scale]
    sparse = [ops.sparse_pack(CONV), scale, ops.sparse_pack(linear), scale]
    expected, got = (ops.run_net(program, [image], tensors)[0] for tensors in (dense, sparse))
    assert torch.equal(expected, got)
    assert len(got.unique()) > 1


def test_opcheck() -> None:
    image = WEIGHT[..., None, None].contiguous()
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (torch.ops.pyops.sparse_unpack.default, (PACKED, [6, 8, 1, 1], 2)),
        (torch.ops.pyops.int8_linear.default, (X, PACKED, torch.ones(6), None, None, 1, 0)),
        (torch.ops.pyops.int8_gemm.default,
         (A, PACKED, 6, None, None, None, None, None, 0, 5, 1.0, 0)),
    ]  # fmt: skip
    for op, arguments in calls:
        torch.library.opcheck(op, arguments)
    tests = ("test_schema", "test_autograd_registration")
    torch.library.opcheck(torch.ops.pyops.sparse_pack.default, (image, 1), test_utils=tests)


def test_compiled_without_breaks() -> None:
    def layer(x: torch.Tensor) -> torch.Tensor:
        return ops.int8_linear(x, PACKED, torch.ones(6), activation="relu") + 1

    with torch.no_grad():
        got = torch.compile(layer, fullgraph=True, backend="aot_eager")(X)
    assert torch.equal(got, layer(X))


def test_the_reference_computes_the_same() -> None:
    for weight, kernel in ((WEIGHT[..., None, None], 1), (CONV, 3)):
        packed = sparse_gemm_reference.sparse_pack_reference(weight, 1)
        shape = list(weight.shape)
        back = sparse_gemm_reference.sparse_unpack_reference(packed, shape, 2)
        assert torch.equal(back, weight)
        out = int8_conv_relu_reference.int8_conv_relu_reference(
            IMAGE, packed, shape, [1, 1], [1, 1, 1, 1], [1, 1], 1.0, 7, None, None, None, 1.0, 0, 0,
            0.0, 0.0, None, 5, 1.0, 0,
        )  # fmt: skip
        ours = ops.int8_conv_relu(
            IMAGE, ops.sparse_pack(weight), shape, padding=1, zero_point_x=7, out_dtype=torch.int32
        )
        assert torch.equal(out, ours), kernel
    linear = sparse_gemm_reference.sparse_pack_reference(WEIGHT[..., None, None], 1)
    out = int8_gemm_reference.int8_linear_reference(X, linear, torch.ones(6), None, None, 0, 0)
    assert torch.equal(out, ops.int8_linear(X, PACKED, torch.ones(6)))

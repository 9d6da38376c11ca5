"""The int8 ops as users and torch meet them: shapes, errors, fakes, compile, export."""

import re

import pytest
import torch
from torch import Tensor, nn

import pyops
from pyops import backends, ops
from pyops.ops.int8_gemm_reference import (
    quantize_rows_reference,
)
from pyops.testing.compare import assert_same

N, K = 24, 20
WEIGHT = torch.arange(N * K).remainder(255).sub(127).to(torch.int8).reshape(N, K)
SCALE = torch.linspace(0.001, 0.01, N)
BIAS = torch.linspace(-1, 1, N)
A = torch.zeros(4, K, dtype=torch.int8)


@pytest.fixture
def packed() -> Tensor:
    return ops.int8_pack(WEIGHT)


def test_leading_dimensions(packed: Tensor) -> None:
    x = torch.randn(2, 3, 5, K)
    flat = ops.int8_linear(x.reshape(-1, K), packed, SCALE, BIAS)
    assert_same(ops.int8_linear(x, packed, SCALE, BIAS), flat.reshape(2, 3, 5, N), "4-D")
    assert_same(ops.int8_linear(x[0, 0, 0], packed, SCALE, BIAS), flat[0], "1-D")
    for shape in ((0, K), (2, 0, 3, K)):
        assert ops.int8_linear(torch.empty(shape), packed, SCALE).shape == (*shape[:-1], N)


def test_strided_inputs(packed: Tensor) -> None:
    x = torch.randn(7, 2 * K)[:, ::2]
    residual = torch.randn(N, 7).T
    expected = ops.int8_linear(x.contiguous(), packed, SCALE, residual=residual.contiguous())
    assert_same(ops.int8_linear(x, packed, SCALE, residual=residual), expected, "linear")
    a, scale, _ = ops.quantize_rows(x)
    wide = torch.zeros(7, 2 * K, dtype=torch.int8)
    wide[:, ::2] = a
    got = ops.int8_gemm(wide[:, ::2], packed, N, scale_a=scale, scale_w=SCALE)
    assert_same(got, ops.int8_linear(x, packed, SCALE), "gemm")


def test_linear_is_quantize_then_gemm(packed: Tensor) -> None:
    x = torch.randn(9, K, dtype=torch.bfloat16)
    q, scale, _ = ops.quantize_rows(x)
    two = ops.int8_gemm(
        q, packed, N, scale_a=scale, scale_w=SCALE, bias=BIAS, activation="gelu",
        out_dtype=torch.float16,
    )  # fmt: skip
    one = ops.int8_linear(x, packed, SCALE, BIAS, activation="gelu", out_dtype=torch.float16)
    assert_same(one, two, "chained")


def test_zero_points_take_asymmetric_codes_back(packed: Tensor) -> None:
    x = torch.rand(6, K) + 1
    for dtype in (torch.int8, torch.uint8):
        q, scale, zero = ops.quantize_rows(x, symmetric=False, dtype=dtype)
        got = ops.int8_gemm(q, packed, N, scale_a=scale, zero_point_a=zero, scale_w=SCALE)
        exact = ((q.double() - zero[:, None]) * scale[:, None]) @ (WEIGHT.T * SCALE).double()
        assert torch.allclose(got.double(), exact, rtol=1e-6, atol=1e-5)


def test_inference_mode_and_autocast(packed: Tensor) -> None:
    x = torch.randn(3, K)
    expected = ops.int8_linear(x, packed, SCALE)
    with torch.inference_mode():
        assert_same(ops.int8_linear(x, packed, SCALE), expected, "inference_mode")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(ops.int8_linear(x, packed, SCALE), expected, "autocast leaves ops alone")


def test_schema_and_fakes_agree_with_the_kernels(packed: Tensor) -> None:
    x = torch.randn(4, K)
    a, scale, zero = ops.quantize_rows(x)
    calls = {
        "quantize_rows": (x, False, False),
        "int8_pack": (WEIGHT,),
        "int8_unpack": (packed, N, K),
        "int8_gemm": (a, packed, N, scale, zero, SCALE, BIAS, None, 2, 3, 0.1, 3),
        "int8_linear": (x, packed, SCALE, BIAS, torch.randn(4, N), 1, 1),
    }
    for name, args in calls.items():
        torch.library.opcheck(getattr(torch.ops.pyops, name).default, args)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.packed = ops.int8_pack(WEIGHT)

    def forward(self, x: Tensor) -> Tensor:
        return ops.int8_linear(x * 2, self.packed, SCALE, BIAS, activation="silu") + 1


@pytest.mark.slow
def test_compile_without_a_graph_break() -> None:
    model, x = Wrapped(), torch.randn(5, K)
    with torch.inference_mode():
        compiled = torch.compile(model, fullgraph=True)
        assert_same(compiled(x), model(x), "compiled")


def test_export() -> None:
    model, x = Wrapped(), torch.randn(5, K)
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        assert_same(exported.module()(x), model(x), "exported")
    assert any("int8_linear" in str(n.target) for n in exported.graph.nodes)


def test_a_weight_of_another_layout_is_refused() -> None:
    rows = [r for r in backends.implementations("int8_gemm") if r.available]
    by_layout = {r.layout: r.name for r in rows}
    if len(by_layout) < 2:
        pytest.skip("this build has one layout only")
    (first, a), (second, b) = list(by_layout.items())[:2]
    with backends.force("int8_gemm", a):
        packed = ops.int8_pack(WEIGHT)
    with backends.force("int8_gemm", b):
        message = (
            f"int8_linear: the weight is packed as {first}, but kernel {b} takes {second}; "
            "pack it again (int8_unpack, then int8_pack)"
        )
        with pytest.raises(RuntimeError, match=re.escape(message)):
            ops.int8_linear(torch.randn(2, K), packed, SCALE)
        assert_same(ops.int8_unpack(packed, N, K), WEIGHT, "unpack reads any layout")


def test_forcing_what_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"isa\.force: 'sse9' is not available here"):
        with pyops.isa.force("sse9"):
            pass
    with pytest.raises(ValueError, match="int8_gemm has no 'sse9' here"):
        with backends.force("int8_gemm", "sse9"):
            pass


def test_an_isa_level_runs_its_own_kernel(isa: str) -> None:
    rows = [r for r in backends.implementations("int8_gemm") if not r.test_only]
    expected = next((r.name for r in rows if r.isa == isa), "reference")
    assert backends.kernel("int8_gemm") == expected


def test_strided_operands(packed: Tensor) -> None:
    wide = torch.rand(N, 2)
    expected = ops.int8_gemm(A + 3, packed, N, scale_w=wide[:, 0].clone(), bias=wide[:, 1].clone())
    got = ops.int8_gemm(A + 3, packed, N, scale_w=wide[:, 0], bias=wide[:, 1])
    assert_same(got, expected, "columns of a matrix")
    scale, zero = torch.tensor([0.5]).expand(4), torch.tensor([2], dtype=torch.int32).expand(4)
    got = ops.int8_gemm(A, packed, N, scale_a=scale, zero_point_a=zero)
    expected = ops.int8_gemm(A, packed, N, scale_a=scale[:1], zero_point_a=zero[:1])
    assert_same(got, expected, "an expanded scale")


def test_the_quantizer_returns_dense_rows_everywhere() -> None:
    x = torch.randn(6, 5).t()
    kernel, fake = ops.quantize_rows(x), ops.quantize_rows(x.to("meta"))
    plain = quantize_rows_reference(x, True, True)
    for a, b, c in zip(kernel, fake, plain, strict=True):
        assert a.stride() == b.stride() == c.stride()


def test_meta_tensors_go_through() -> None:
    arguments = {"scale_a": torch.ones(1, device="meta"), "out_dtype": torch.int8}
    packed = torch.empty(1000, dtype=torch.uint8, device="meta")
    assert ops.int8_gemm(A.to("meta"), packed, N, **arguments).shape == (4, N)

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
SQUARE = torch.arange(N * N).remainder(251).sub(125).to(torch.int8).reshape(N, N)
DOWN = ops.int8_pack(SQUARE)


@pytest.fixture
def packed() -> Tensor:
    return ops.int8_pack(WEIGHT)


LAYER_OPS = ("int8_linear", "int8_rows")


def row_program() -> ops.RowProgram:
    """A gated pair with a residual behind it, between two norms; three results."""
    program = ops.RowProgram(inputs=2)
    read = program.layer_norm(0, eps=1e-5, bias=False)
    gate = program.linear(read, activation="silu")
    up = program.linear(read, gate=gate)
    down = program.linear(up, residual=1, bias=False)
    program.returns(program.rms_norm(down, eps=1e-5), gate, down)
    return program


def row_tensors(packed: Tensor, weight: Tensor = SCALE, bias: Tensor = BIAS) -> list[Tensor]:
    first = [torch.linspace(1, 2, K), packed, weight, bias, packed, weight, bias]
    return [*first, DOWN, weight, bias]


def layers(x: Tensor, packed: Tensor, residual: Tensor) -> list[Tensor]:
    return ops.int8_rows(row_program(), [x, residual], row_tensors(packed))


@pytest.mark.parametrize("shape", [(2, 3, 5, K), (K,), (0, K), (2, 0, 3, K), (1, 1, K)])
def test_layers_take_leading_dimensions(packed: Tensor, shape: tuple[int, ...]) -> None:
    x, residual = torch.randn(shape), torch.randn(*shape[:-1], N)
    flat = layers(x.reshape(-1, K), packed, residual.reshape(-1, N))
    for out, expected in zip(layers(x, packed, residual), flat, strict=True):
        assert_same(out, expected.reshape(*shape[:-1], N), f"{shape}")
        assert out.is_contiguous()


def test_layers_take_strided_inputs(packed: Tensor) -> None:
    x, residual = torch.randn(7, 2 * K)[:, ::2], torch.randn(N, 7).T
    expected = layers(x.contiguous(), packed, residual.contiguous())
    for out, dense in zip(layers(x, packed, residual), expected, strict=True):
        assert_same(out, dense, "strided")
    wide = torch.rand(N, 2)
    strided = row_tensors(packed, wide[:, 0], wide[:, 1])
    inputs = [x, residual]
    a = ops.int8_rows(row_program(), inputs, strided)
    b = ops.int8_rows(row_program(), inputs, [t.contiguous() for t in strided])
    for out, dense in zip(a, b, strict=True):
        assert_same(out, dense, "columns")


def test_layers_return_new_tensors(packed: Tensor) -> None:
    """Also where scratch memory is kept between calls."""
    x, residual = torch.randn(40, K), torch.ones(40, N)
    first, second = layers(x, packed, residual), layers(x * 2 + 1, packed, residual)
    kept = [t.clone() for t in first]
    layers(torch.zeros(40, K), packed, residual)
    for i, (a, b, c) in enumerate(zip(first, second, kept, strict=True)):
        assert_same(a, c, f"{i}")
        assert a.data_ptr() != b.data_ptr()
    assert len({t.data_ptr() for t in first}) == 3


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
    program = row_program()
    calls = {
        "quantize_rows": (x, False, False),
        "int8_pack": (WEIGHT,),
        "int8_unpack": (packed, N, K),
        "int8_gemm": (a, packed, N, scale, zero, SCALE, BIAS, None, 2, 3, 0.1, 3),
        "int8_linear": (x, packed, SCALE, BIAS, torch.randn(4, N), 1, 1),
        "int8_rows": ([x, torch.randn(4, N)], row_tensors(packed), program.steps, program.eps,
                      program.outputs, 2),
    }  # fmt: skip
    for name, args in calls.items():
        torch.library.opcheck(getattr(torch.ops.pyops, name).default, args)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.packed = ops.int8_pack(WEIGHT)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.int8_linear(x * 2, self.packed, SCALE, BIAS, activation="silu") + 1
        a, b, c = layers(x + 1, self.packed, y)
        return a + b * c


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
    called = {str(node.target) for node in exported.graph.nodes}
    assert {f"pyops.{op}.default" for op in ("int8_linear", *LAYER_OPS)} <= called


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
    # Bytes that are spread, and bf16 products: nothing for dense int8.
    level = {"avx512vbmi2": "avx512vnni", "avx512bf16": "avx512vnni"}.get(isa, isa)
    expected = next((r.name for r in rows if r.isa == level), "reference")
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

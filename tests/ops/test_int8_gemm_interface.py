"""The int8 ops as users and torch meet them: shapes, errors, fakes, compile, export."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyops
from pyops import backends, ops
from pyops.ops import packing
from pyops.ops.int8_gemm_reference import int8_linear_reference
from pyops.testing.compare import assert_same

N, K = 24, 20
WEIGHT = torch.arange(N * K).remainder(255).sub(127).to(torch.int8).reshape(N, K)
SCALE = torch.linspace(0.001, 0.01, N)
BIAS = torch.linspace(-1, 1, N)


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


X, A = torch.randn(4, K), torch.zeros(4, K, dtype=torch.int8)
_FLOATS = "torch.float32, torch.bfloat16 or torch.float16"
Call = Callable[[Tensor], Any]
BAD: list[tuple[str, Call, type[Exception], str]] = [
    ("x dtype", lambda p: ops.int8_linear(X.double(), p, SCALE), TypeError,
     f"int8_linear: x must be {_FLOATS}, but is torch.float64"),
    ("x 0-D", lambda p: ops.int8_linear(torch.tensor(1.0), p, SCALE), ValueError,
     "int8_linear: x must have at least 1 dimension, but has 0"),
    ("out dtype", lambda p: ops.int8_linear(X, p, SCALE, out_dtype=torch.int8), TypeError,
     f"int8_linear: out_dtype must be {_FLOATS}, but is torch.int8"),
    ("scale size", lambda p: ops.int8_linear(X, p, SCALE, BIAS[:-1]), ValueError,
     "int8_linear: bias must be [24], but is [23]"),
    ("bias dtype", lambda p: ops.int8_linear(X, p, SCALE, BIAS.double()), TypeError,
     "int8_linear: bias must be torch.float32, but is torch.float64"),
    ("scale 2-D", lambda p: ops.int8_linear(X, p, SCALE[None]), ValueError,
     "int8_linear: scale_w must be 1-D [N], but is 2-D"),
    ("residual", lambda p: ops.int8_linear(X, p, SCALE, residual=X), ValueError,
     "int8_linear: residual must be [4, 24], but is [4, 20]"),
    ("activation", lambda p: ops.int8_linear(X, p, SCALE, activation="tanh"), ValueError,
     "int8_linear: activation must be one of ('none', 'relu', 'gelu', 'gelu_tanh', 'silu'), "
     "but is 'tanh'"),
    ("grad", lambda p: ops.int8_linear(X.clone().requires_grad_(), p, SCALE), ValueError,
     "int8_linear is for inference: an argument requires grad"),
    ("packed", lambda p: ops.int8_linear(X, WEIGHT, SCALE), TypeError,
     "int8_linear: packed must be the 1-D torch.uint8 tensor that int8_pack returns, "
     "but is 2-D torch.int8"),
    ("a dtype", lambda p: ops.int8_gemm(X, p, N), TypeError,
     "int8_gemm: a must be torch.int8 or torch.uint8, but is torch.float32"),
    ("scale_a rows", lambda p: ops.int8_gemm(A, p, N, scale_a=torch.ones(3)), ValueError,
     "int8_gemm: scale_a must have 1 element or 4 (one per row), but has 3"),
    ("zero dtype", lambda p: ops.int8_gemm(A, p, N, zero_point_a=torch.ones(1)), TypeError,
     "int8_gemm: zero_point_a must be torch.int32, but is torch.float32"),
    ("int32 bias", lambda p: ops.int8_gemm(A, p, N, bias=BIAS, out_dtype=torch.int32), ValueError,
     "int8_gemm: out_dtype torch.int32 takes no scale, bias or residual"),
    ("int32 act", lambda p: ops.int8_gemm(A, p, N, activation="relu", out_dtype=torch.int32),
     ValueError, "int8_gemm: out_dtype torch.int32 takes no activation, but 'relu'"),
    ("float out_scale", lambda p: ops.int8_gemm(A, p, N, out_scale=2.0), ValueError,
     "int8_gemm: out_scale and out_zero_point are for int8 and uint8 outputs"),
    ("bad out_scale", lambda p: ops.int8_gemm(A, p, N, out_dtype=torch.int8, out_scale=0.0),
     ValueError, "int8_gemm: out_scale must be positive and finite, but is 0.0"),
    ("zero range", lambda p: ops.int8_gemm(A, p, N, out_dtype=torch.uint8, out_zero_point=-1),
     ValueError, "int8_gemm: out_zero_point must be in [0, 255], but is -1"),
    ("nan scale to int8",
     lambda p: ops.int8_gemm(A, p, N, scale_a=torch.tensor([torch.nan]), out_dtype=torch.int8),
     ValueError, "int8_gemm: scale_a holds NaN or Inf (a row of the input was not finite), "
     "which an 8-bit output cannot express"),
    ("complex out", lambda p: ops.int8_gemm(A, p, N, out_dtype=torch.int64), TypeError,
     f"int8_gemm: out_dtype must be {_FLOATS}, torch.int8, torch.uint8 or torch.int32, "
     "but is torch.int64"),
    ("pack dtype", lambda p: ops.int8_pack(X), TypeError,
     "int8_pack: weight must be torch.int8, but is torch.float32"),
    ("pack 1-D", lambda p: ops.int8_pack(A[0]), ValueError,
     "int8_pack: weight must be 2-D [N, K], but is 1-D"),
    ("pack deep", lambda p: ops.int8_pack(torch.zeros(1, 65537, dtype=torch.int8)), ValueError,
     "int8_pack: K is 65537, but at most 65536 is exact in int32"),
    ("quantize dtype", lambda p: ops.quantize_rows(A), TypeError,
     f"quantize_rows: x must be {_FLOATS}, but is torch.int8"),
    ("quantize to", lambda p: ops.quantize_rows(X, dtype=torch.int32), TypeError,
     "quantize_rows: dtype must be torch.int8 or torch.uint8, but is torch.int32"),
    ("weight nan", lambda p: ops.quantize_weight(torch.full((2, 3), torch.nan)), ValueError,
     "quantize_weight: output channel 0 holds NaN or Inf"),
    ("weight 3-D", lambda p: ops.quantize_weight(torch.ones(2, 3, 4)), ValueError,
     "quantize_weight: weight must be 2-D [N, K], but is 3-D"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input(packed: Tensor, call: Call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(packed)


def _flip(t: Tensor, at: int) -> Tensor:
    t = t.clone()
    t[at] ^= 1
    return t


# What only the packed bytes can tell: refused with one wording by the kernels and the reference.
DAMAGED: list[tuple[str, Call, str]] = [
    (
        "no header",
        lambda p: torch.zeros_like(p),
        "packed weight: not made by int8_pack (no header)",
    ),
    ("version", lambda p: _flip(p, 8), "packed weight: "),
    ("cut", lambda p: p[:-1].clone(), "packed weight: "),
    ("tiny", lambda p: p[:10].clone(), "packed weight: "),
]


@pytest.mark.parametrize(
    ("damage", "message"), [d[1:] for d in DAMAGED], ids=[d[0] for d in DAMAGED]
)
def test_damaged_packed_weights(packed: Tensor, damage: Call, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
        ops.int8_linear(X, damage(packed), SCALE)
    with pytest.raises(ValueError, match=re.escape(message)):
        int8_linear_reference(X, damage(packing.pack_plain(WEIGHT)), SCALE, None, None, 0, 0)


def test_a_weight_of_another_shape(packed: Tensor) -> None:
    deep = "the packed weight has K = 20, but the input's last dimension is 19"
    wide = "the packed weight has 24 output channels, but n is 23"
    plain = packing.pack_plain(WEIGHT)
    for weight, linear in (
        (packed, torch.ops.pyops.int8_linear),
        (plain, int8_linear_reference),
    ):
        with pytest.raises((RuntimeError, ValueError), match=re.escape(deep)):
            linear(X[:, :-1], weight, SCALE, None, None, 0, 0)
        with pytest.raises((RuntimeError, ValueError), match=re.escape(wide)):
            linear(X, weight, SCALE[:-1], None, None, 0, 0)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_direct_calls_are_checked_too(packed: Tensor, device: str) -> None:
    """torch.ops without the public function: the compiled check on the CPU, the fake elsewhere."""
    args = [t.to(device) for t in (X, packed, SCALE)]
    with pytest.raises((RuntimeError, ValueError), match=re.escape("bias must be [24]")):
        torch.ops.pyops.int8_linear(*args, BIAS[:-1].to(device), None, 0, 0)
    with pytest.raises(
        (RuntimeError, TypeError), match=r"x must be torch\.float32, torch\.bfloat16"
    ):
        torch.ops.pyops.int8_linear(args[0].double(), *args[1:], None, None, 0, 0)
    with pytest.raises((RuntimeError, IndexError)):
        torch.ops.pyops.int8_linear(*args, None, None, 9, 0) if device == "cpu" else (
            torch.ops.pyops.int8_linear(*args, None, None, 0, 9)
        )

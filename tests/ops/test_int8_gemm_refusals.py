"""What the int8 ops refuse, and in which words: public functions, kernels, references, fakes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.ops import packing
from pyops.ops.int8_gemm_reference import int8_gemm_reference, int8_linear_reference

N, K = 24, 20
WEIGHT = torch.arange(N * K).remainder(255).sub(127).to(torch.int8).reshape(N, K)
SCALE = torch.linspace(0.001, 0.01, N)
BIAS = torch.linspace(-1, 1, N)


@pytest.fixture
def packed() -> Tensor:
    return ops.int8_pack(WEIGHT)


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
    ("nan scale, no rows",
     lambda p: ops.int8_gemm(A[:0], p, N, scale_a=torch.tensor([torch.inf]), out_dtype=torch.uint8),
     ValueError, "int8_gemm: scale_a holds NaN or Inf (a row of the input was not finite), "
     "which an 8-bit output cannot express"),
    ("meta bias", lambda p: ops.int8_gemm(A, p, N, bias=BIAS.to("meta")), ValueError,
     "int8_gemm: bias is on meta, but the first argument on cpu"),
    ("meta packed", lambda p: ops.int8_linear(X, p.to("meta"), SCALE), ValueError,
     "int8_linear: packed is on meta, but the first argument on cpu"),
    ("list", lambda p: ops.int8_gemm(A, p, N, activation=["none"]), ValueError,
     "int8_gemm: activation must be one of ('none', 'relu', 'gelu', 'gelu_tanh', 'silu'), "
     "but is ['none']"),
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
    ("weight float64", lambda p: ops.quantize_weight(torch.ones(2, 3).double()), TypeError,
     f"quantize_weight: weight must be {_FLOATS}, but is torch.float64"),
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
    for activation, dtype, message in ((9, 0, "activation code 9"), (0, -1, "out_dtype code -1")):
        with pytest.raises((RuntimeError, ValueError), match=f"{message} is unknown"):
            torch.ops.pyops.int8_linear(*args, None, None, activation, dtype)


INT32, INT8, FLOAT = 5, 3, 0
UNCHECKED = [
    ((None, None, None, BIAS, None, 0, INT32, 1.0, 0), "takes no scale, bias or residual"),
    ((None, None, None, None, None, 1, INT32, 1.0, 0), "out_dtype torch.int32 takes no activation"),
    ((None, None, None, None, None, 0, INT8, 0.0, 0), "out_scale must be positive and finite"),
    ((None, None, None, None, None, 0, INT8, 1e300, 0), "out_scale must be positive and finite"),
    ((None, None, None, None, None, 0, INT8, 1.0, 2**40), "out_zero_point must be in [-128, 127]"),
    ((None, None, None, None, None, 0, FLOAT, 2.0, 0), "are for int8 and uint8 outputs"),
]


@pytest.mark.parametrize(("arguments", "message"), UNCHECKED, ids=[u[1] for u in UNCHECKED])
@pytest.mark.parametrize("where", ["kernel", "reference", "fake"])
def test_outputs_are_checked_on_every_path(
    packed: Tensor, arguments: tuple[Any, ...], message: str, where: str
) -> None:
    to = "meta" if where == "fake" else "cpu"
    moved = [t.to(to) if isinstance(t, Tensor) else t for t in arguments]
    call = int8_gemm_reference if where == "reference" else torch.ops.pyops.int8_gemm
    weight = packing.pack_plain(WEIGHT) if where == "reference" else packed.to(to)
    with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
        call(A.to(to), weight, N, *moved)


def test_negative_sizes(packed: Tensor) -> None:
    with pytest.raises(ValueError, match="n must be at least 0, but is -1"):
        ops.int8_gemm(A, packed, -1)
    with pytest.raises((RuntimeError, ValueError), match="the packed weight"):
        ops.int8_unpack(packed, -1, -1)

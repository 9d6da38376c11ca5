"""What the weight-only ops refuse, on every path to them; tracing and compilation."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.ops import weight_only_packing as packing
from pyops.ops import weight_only_reference as plain
from pyops.ops.epilogue import ACTIVATION_CODE
from pyops.testing.cases.weight_only import weight_case

N, K = 12, 40
INT8 = torch.arange(N * K).remainder(255).sub(127).to(torch.int8).reshape(N, K)
CODES = torch.arange(N * K).remainder(16).sub(8).to(torch.int8).reshape(N, K)
CODES_U = (CODES + 8).to(torch.uint8)
SCALE, ZERO = torch.ones(N, 2), torch.full((N, 2), 3, dtype=torch.uint8)
X, ONES = torch.randn(4, K), torch.ones(N)
FLOATS = "torch.float32, torch.bfloat16 or torch.float16"
WHERE = ["public", "kernel", "reference", "fake"]
LINEAR = ["int8_weight_linear", "int4_linear"]
PACK = {"int8_weight_linear": "int8_weight_pack", "int4_linear": "int4_pack"}


def packed_for(op: str, where: str) -> Tensor:
    if op == "int8_weight_linear":
        return (packing.pack_plain_int8 if where == "reference" else ops.int8_weight_pack)(INT8)
    if where == "reference":
        return packing.pack_plain_int4(CODES, SCALE, None, 32)
    return ops.int4_pack(CODES, SCALE, group_size=32)


def arguments(op: str, where: str) -> dict[str, Any]:
    head = {"scale_w": ONES} if op == "int8_weight_linear" else {"n": N}
    return {
        "x": X, "packed": packed_for(op, where), **head, "bias": ONES,
        "residual": torch.ones(4, N), "activation": "gelu", "out_dtype": torch.float32,
    }  # fmt: skip


def code(value: Any) -> Any:
    if isinstance(value, str):
        return ACTIVATION_CODE[value]
    return 0 if value is torch.float32 else value


def call(op: str, where: str, given: dict[str, Any]) -> Any:
    if where == "public":
        return getattr(ops, op)(**given)
    values = [code(value) for value in given.values()]
    if where == "reference":
        return getattr(plain, f"{op}_reference")(*values)
    if where == "fake":
        values = [v.to("meta") if isinstance(v, Tensor) else v for v in values]
    return getattr(torch.ops.pyops, op).default(*values)


def refused(op: str, where: str, given: dict[str, Any], error: type, message: str) -> None:
    """The kernel raises RuntimeError, and leaves out what was given."""
    if where == "kernel":
        if not backends.compiled():
            pytest.skip("nothing is compiled")
        error, message = RuntimeError, message.partition(", but ")[0]
    with pytest.raises(error, match=re.escape(f"{op}: {message}")):
        call(op, where, given)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("op", LINEAR)
def test_the_arguments_are_good(op: str, where: str) -> None:
    assert call(op, where, arguments(op, where)).shape == (4, N)


BAD: list[tuple[dict[str, Any], type, str]] = [
    ({"x": X.double()}, TypeError, f"x must be {FLOATS}, but is torch.float64"),
    ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, but has 0"),
    ({"bias": ONES[:-1]}, ValueError, "bias must be [12], but is [11]"),
    ({"bias": ONES.half()}, TypeError, "bias must be torch.float32, but is torch.float16"),
    ({"residual": torch.ones(3, N)}, ValueError, "residual must be [4, 12], but is [3, 12]"),
    ({"residual": torch.ones(4, N).double()}, TypeError,
     f"residual must be {FLOATS}, but is torch.float64"),
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("op", LINEAR)
@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_arguments(
    op: str, where: str, change: dict[str, Any], error: type, message: str
) -> None:
    if where == "kernel" and message.startswith("residual must be ["):
        message = "residual must have the shape of the output"  # without its numbers
    refused(op, where, arguments(op, where) | change, error, message)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("op", LINEAR)
def test_a_packed_weight_of_another_type(op: str, where: str) -> None:
    message = (
        f"packed must be the 1-D torch.uint8 tensor that {PACK[op]} returns, but is 2-D torch.int8"
    )
    refused(op, where, arguments(op, where) | {"packed": INT8}, TypeError, message)


@pytest.mark.parametrize("where", WHERE)
def test_bad_scales(where: str) -> None:
    op = "int8_weight_linear"
    for scale, error, message in (
        (ONES[None], ValueError, "scale_w must be 1-D [N], but is 2-D"),
        (ONES.double(), TypeError, "scale_w must be torch.float32, but is torch.float64"),
    ):
        refused(op, where, arguments(op, where) | {"scale_w": scale}, error, message)


@pytest.mark.parametrize("where", ["kernel", "reference", "fake"])
@pytest.mark.parametrize("op", LINEAR)
def test_codes(op: str, where: str) -> None:
    for value in (-1, 5, 2**40):
        given = arguments(op, where) | {"activation": value}
        refused(op, where, given, ValueError, f"activation code {value} is unknown")
    for value in (-1, 3, 2**40):
        given = arguments(op, where) | {"out_dtype": value}
        refused(op, where, given, ValueError, f"out_dtype code {value} is unknown")


@pytest.mark.parametrize("op", LINEAR)
def test_the_public_functions_alone(op: str) -> None:
    good = arguments(op, "public")
    message = "activation must be one of ('none', 'relu', 'gelu', 'gelu_tanh', 'silu'), but is"
    refused(op, "public", good | {"activation": "tanh"}, ValueError, f"{message} 'tanh'")
    int8 = f"out_dtype must be {FLOATS}, but is torch.int8"
    refused(op, "public", good | {"out_dtype": torch.int8}, TypeError, int8)
    for name in ("x", "bias", "residual"):
        needs = good | {name: good[name].clone().requires_grad_()}
        with pytest.raises(ValueError, match=f"{op} is for inference: an argument requires grad"):
            call(op, "public", needs)
        with torch.no_grad():
            call(op, "public", needs)


@pytest.mark.parametrize("where", ["public", "kernel", "reference"])
@pytest.mark.parametrize("op", LINEAR)
def test_a_shape_that_the_packed_weight_contradicts(op: str, where: str) -> None:
    if where == "kernel" and not backends.compiled():
        pytest.skip("nothing is compiled")
    given = arguments(op, where)
    more = {"scale_w": torch.ones(N + 1)} if op == "int8_weight_linear" else {"n": N + 1}
    more |= {"bias": None, "residual": None}
    for change, message in (
        ({"x": X[:, 1:]}, "the packed weight has K = 40, but the input's last dimension is 39"),
        (more, "the packed weight has 12 output channels, but n is 13"),
    ):
        with pytest.raises((RuntimeError, ValueError), match=re.escape(f"{op}: {message}")):
            call(op, where, given | change)
    other = packed_for(next(o for o in LINEAR if o != op), where)
    with pytest.raises((RuntimeError, ValueError), match=r"codes of \d bits"):
        call(op, where, given | {"packed": other})


def pack_arguments(asymmetric: bool) -> dict[str, Any]:
    zero = ZERO if asymmetric else None
    return {"codes": CODES_U if asymmetric else CODES, "scale": SCALE, "zero": zero,
            "group_size": 32}  # fmt: skip


BAD_PACK: list[tuple[bool, dict[str, Any], type, str]] = [
    (False, {"codes": CODES_U}, TypeError,
     "codes must be torch.int8 without zero points, but is torch.uint8"),
    (True, {"codes": CODES}, TypeError,
     "codes must be torch.uint8 with zero points, but is torch.int8"),
    (False, {"codes": CODES[0]}, ValueError, "codes must be 2-D [N, K], but is 1-D"),
    (False, {"group_size": 48}, ValueError, "group_size must be 32, 64 or 128, but is 48"),
    (False, {"group_size": 0}, ValueError, "group_size must be 32, 64 or 128, but is 0"),
    (False, {"scale": SCALE.half()}, TypeError,
     "scale must be torch.float32, but is torch.float16"),
    (False, {"scale": SCALE[:, :1]}, ValueError, "scale must be [12, 2], but is [12, 1]"),
    (False, {"group_size": 64}, ValueError, "scale must be [12, 1], but is [12, 2]"),
    (True, {"zero": ZERO.float()}, TypeError, "zero must be torch.uint8, but is torch.float32"),
    (True, {"zero": ZERO[1:]}, ValueError, "zero must be [12, 2], but is [11, 2]"),
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("asymmetric", "change", "error", "message"), BAD_PACK, ids=[b[3] for b in BAD_PACK]
)
def test_bad_int4_weights(
    where: str, asymmetric: bool, change: dict[str, Any], error: type, message: str
) -> None:
    refused("int4_pack", where, pack_arguments(asymmetric) | change, error, message)


@pytest.mark.parametrize("where", ["public", "reference"])
@pytest.mark.parametrize("name", ["scale", "zero"])
def test_int4_weights_on_two_devices(where: str, name: str) -> None:
    given = pack_arguments(True)
    given[name] = given[name].to("meta")
    message = f"int4_pack: {name} is on meta, but the first argument on cpu"
    with pytest.raises(ValueError, match=re.escape(message)):
        call("int4_pack", where, given)


@pytest.mark.parametrize("where", ["public", "kernel", "reference"])
def test_values_that_four_bits_cannot_hold(where: str) -> None:
    for asymmetric, name, value, message in (
        (False, "codes", 8, "codes must be in [-8, 7], but -8 to 8 occur"),
        (False, "codes", -9, "codes must be in [-8, 7], but -9 to 7 occur"),
        (True, "codes", 16, "codes must be in [0, 15], but 0 to 16 occur"),
        (True, "zero", 16, "zero must be in [0, 15], but 3 to 16 occur"),
    ):
        given = pack_arguments(asymmetric)
        given[name] = given[name].clone()
        given[name][2, 1] = value
        refused("int4_pack", where, given, ValueError, message)


@pytest.mark.parametrize("where", WHERE)
def test_bad_int8_weights(where: str) -> None:
    op = "int8_weight_pack"
    refused(op, where, {"weight": X}, TypeError, "weight must be torch.int8, but is torch.float32")
    refused(op, where, {"weight": INT8[0]}, ValueError, "weight must be 2-D [N, K], but is 1-D")


def test_bad_weights_for_the_quantizer() -> None:
    op = "quantize_weight_int4"
    for w, size, error, message in (
        (torch.ones(2, 2).double(), 32, TypeError, f"weight must be {FLOATS}, but is"),
        (torch.ones(2), 32, ValueError, "weight must be 2-D [N, K], but is 1-D"),
        (torch.ones(2, 2), 31, ValueError, "group_size must be 32, 64 or 128, but is 31"),
        (torch.tensor([[1.0], [torch.nan]]), 32, ValueError, "output channel 1 holds NaN or Inf"),
    ):
        with pytest.raises(error, match=re.escape(f"{op}: {message}")):
            ops.quantize_weight_int4(w, size)


def damaged(packed: Tensor, at: int, value: int) -> Tensor:
    packed = packed.clone()
    packed[at] = value
    return packed


@pytest.mark.parametrize("kind", [0, 1, 4])
@pytest.mark.parametrize("where", ["kernel", "reference"])
def test_damaged_packed_weights(where: str, kind: int) -> None:
    if where == "kernel" and not backends.compiled():
        pytest.skip("nothing is compiled")
    case = weight_case(0, 2, 12, 40, kind)
    if where == "kernel":
        good = case.pack()
    elif kind == 0:
        good = packing.pack_plain_int8(case.codes)
    else:
        good = packing.pack_plain_int4(case.codes, case.scale, case.zero, case.group_size)
    op = "int4_linear" if kind else "int8_weight_linear"
    head = {"n": 12} if kind else {"scale_w": ONES}
    rest = {"bias": None, "residual": None, "activation": 0, "out_dtype": 0}
    for packed, message in (
        (good[:63], "shorter than its header of 64"),
        (good[:-1], "length contradicts|bytes, expected"),
        (torch.cat((good, good[:64])), "length contradicts|bytes, expected"),
        (damaged(good, 0, 0), "no header"),
        (damaged(good, 8, 9), "version"),
        (damaged(good, 16, 5), "header is damaged"),
        (damaged(good, 20, 33), "header is damaged"),
        (damaged(good, 31, 255), "header is damaged"),
        (damaged(good, 39, 127), "header is damaged|length contradicts|bytes, expected"),
        (damaged(good, 40, 2), "header is damaged"),
        (damaged(good, 32, 41), "length contradicts|bytes, expected|K = 41"),
    ):
        with pytest.raises((RuntimeError, ValueError), match=message):
            call(op, where, {"x": case.x, "packed": packed, **head, **rest})


@pytest.mark.parametrize("kind", range(7))
def test_any_bytes_behind_a_header_are_safe(kernel: str, kind: int) -> None:
    """Codes, scales and zero points of a damaged file: some result, and no fault."""
    case = weight_case(1, 9, 70, 75, kind)
    packed = case.pack()
    packed[64:] = torch.randint(0, 256, (packed.numel() - 64,), dtype=torch.uint8)
    for rows in (9, 1):
        case.x, case.residual = case.x[:rows], None
        assert case.run(packed).shape == (rows, 70)

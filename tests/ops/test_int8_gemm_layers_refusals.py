"""What int8_linear_group and int8_mlp refuse: public function, kernel, reference and fake."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.ops import int8_gemm_reference as plain
from pyops.ops import packing
from pyops.ops.epilogue import ACTIVATION_CODE

H, K, N = 24, 20, 12
UP = torch.arange(H * K).remainder(255).sub(127).to(torch.int8).reshape(H, K)
DOWN = torch.arange(N * H).remainder(255).sub(127).to(torch.int8).reshape(N, H)
X, SCALE_UP, SCALE_DOWN = torch.randn(4, K), torch.ones(H), torch.ones(N)
FLOATS = "torch.float32, torch.bfloat16 or torch.float16"
PACKED = "packed must be the 1-D torch.uint8 tensor that int8_pack returns"
WHERE = ["public", "kernel", "reference", "fake"]


def group_arguments(where: str) -> dict[str, Any]:
    pack = packing.pack_plain if where == "reference" else ops.int8_pack
    return {
        "x": X, "packed": [pack(UP), pack(UP)], "scale_w": [SCALE_UP, SCALE_UP],
        "bias": [SCALE_UP, SCALE_UP], "activation": ["relu", "none"], "out_dtype": torch.float32,
    }  # fmt: skip


def mlp_arguments(where: str) -> dict[str, Any]:
    pack = packing.pack_plain if where == "reference" else ops.int8_pack
    return {
        "x": X, "packed_up": pack(UP), "scale_up": SCALE_UP, "bias_up": SCALE_UP,
        "activation": "gelu", "packed_down": pack(DOWN), "scale_down": SCALE_DOWN,
        "bias_down": None, "residual": torch.ones(4, N), "out_dtype": torch.float32,
    }  # fmt: skip


def code(value: Any) -> Any:
    if isinstance(value, list):
        return [code(item) for item in value]
    if isinstance(value, str):
        return ACTIVATION_CODE[value]
    return 0 if value is torch.float32 else value


def to_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [to_meta(item) for item in value]
    return value.to("meta") if isinstance(value, Tensor) else value


def call(op: str, where: str, arguments: dict[str, Any]) -> Any:
    if where == "public":
        return getattr(ops, op)(**arguments)
    values = [code(value) for value in arguments.values()]
    if where == "reference":
        return getattr(plain, f"{op}_reference")(*values)
    if where == "fake":
        values = [to_meta(value) for value in values]
    return getattr(torch.ops.pyops, op).default(*values)


def refused(op: str, where: str, change: dict[str, Any], error: type, message: str) -> None:
    """The kernel raises RuntimeError, and leaves out what was given."""
    make = group_arguments if op == "int8_linear_group" else mlp_arguments
    arguments = make(where) | change
    if where == "kernel":
        error, message = RuntimeError, message.partition(", but ")[0]
    with pytest.raises(error, match=re.escape(f"{op}: {message}")):
        call(op, where, arguments)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("op", ["int8_linear_group", "int8_mlp"])
def test_the_arguments_are_good(op: str, where: str) -> None:
    make = group_arguments if op == "int8_linear_group" else mlp_arguments
    assert call(op, where, make(where)) is not None


GROUP: list[tuple[dict[str, Any], type, str]] = [
    ({"x": X.double()}, TypeError, f"x must be {FLOATS}, but is torch.float64"),
    ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, but has 0"),
    ({"packed": [], "scale_w": [], "bias": [], "activation": []}, ValueError,
     "packed must hold at least 1 weight, but is empty"),
    ({"scale_w": [SCALE_UP]}, ValueError, "scale_w has 1 entries for 2 weights"),
    ({"scale_w": [SCALE_UP] * 3}, ValueError, "scale_w has 3 entries for 2 weights"),
    ({"bias": [SCALE_UP]}, ValueError, "bias has 1 entries for 2 weights"),
    ({"activation": ["relu"]}, ValueError, "activation has 1 entries for 2 weights"),
    ({"activation": ["relu"] * 3}, ValueError, "activation has 3 entries for 2 weights"),
    ({"packed": [UP, UP]}, TypeError, f"{PACKED}, but is 2-D torch.int8"),
    ({"scale_w": [SCALE_UP, SCALE_UP[None]]}, ValueError, "scale_w must be 1-D [N], but is 2-D"),
    ({"scale_w": [SCALE_UP, SCALE_UP.double()]}, TypeError,
     "scale_w must be torch.float32, but is torch.float64"),
    ({"bias": [SCALE_UP, SCALE_DOWN]}, ValueError, "bias must be [24], but is [12]"),
    ({"bias": [SCALE_UP, SCALE_UP.half()]}, TypeError,
     "bias must be torch.float32, but is torch.float16"),
]  # fmt: skip
MLP: list[tuple[dict[str, Any], type, str]] = [
    ({"x": X.int()}, TypeError, f"x must be {FLOATS}, but is torch.int32"),
    ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, but has 0"),
    ({"packed_up": UP}, TypeError, f"{PACKED}, but is 2-D torch.int8"),
    ({"packed_down": DOWN.float()}, TypeError, f"{PACKED}, but is 2-D torch.float32"),
    ({"scale_up": SCALE_UP[None]}, ValueError, "scale_w must be 1-D [N], but is 2-D"),
    ({"scale_down": SCALE_DOWN.double()}, TypeError,
     "scale_w must be torch.float32, but is torch.float64"),
    ({"bias_up": SCALE_DOWN}, ValueError, "bias must be [24], but is [12]"),
    ({"bias_down": SCALE_UP}, ValueError, "bias must be [12], but is [24]"),
    ({"residual": torch.ones(4, H)}, ValueError, "residual must be [4, 12], but is [4, 24]"),
    ({"residual": torch.ones(3, N)}, ValueError, "residual must be [4, 12], but is [3, 12]"),
    ({"residual": torch.ones(N)}, ValueError, "residual must be [4, 12], but is [12]"),
    ({"residual": torch.ones(4, N).double()}, TypeError,
     f"residual must be {FLOATS}, but is torch.float64"),
]  # fmt: skip


def kernel_words(message: str) -> str:
    """The kernels name the shape of the output without its numbers."""
    return "residual must have the shape" if message.startswith("residual must be [") else message


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("change", "error", "message"), GROUP, ids=[g[2] for g in GROUP])
def test_groups(where: str, change: dict[str, Any], error: type, message: str) -> None:
    refused("int8_linear_group", where, change, error, message)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("change", "error", "message"), MLP, ids=[g[2] for g in MLP])
def test_mlps(where: str, change: dict[str, Any], error: type, message: str) -> None:
    words = kernel_words(message) if where == "kernel" else message
    refused("int8_mlp", where, change, error, words)


@pytest.mark.parametrize("where", ["public", "kernel", "reference"])
def test_a_hidden_size_that_does_not_fit(where: str) -> None:
    """What only the packed bytes can tell; the op that the words name depends on who reads them."""
    pack = packing.pack_plain if where == "reference" else ops.int8_pack
    for change, message in (
        ({"packed_down": pack(DOWN[:, :-1].contiguous())},
         "the packed weight has K = 23, but the input's last dimension is 24"),
        ({"x": X[:, :-1]}, "the packed weight has K = 20, but the input's last dimension is 19"),
        ({"packed_down": pack(UP)}, "the packed weight has 24 output channels, but n is 12"),
        ({"packed_up": pack(DOWN)}, "the packed weight has 12 output channels, but n is 24"),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
            call("int8_mlp", where, mlp_arguments(where) | change)
    group = group_arguments(where) | {"packed": [pack(UP), pack(DOWN)]}
    with pytest.raises((RuntimeError, ValueError), match="the packed weight has 12 output"):
        call("int8_linear_group", where, group)


@pytest.mark.parametrize("where", ["kernel", "reference", "fake"])
@pytest.mark.parametrize("op", ["int8_linear_group", "int8_mlp"])
def test_codes(op: str, where: str) -> None:
    error = RuntimeError if where == "kernel" else ValueError
    for value in (-1, 5, 2**40):
        change = {"activation": [0, value] if op == "int8_linear_group" else value}
        refused(op, where, change, error, f"activation code {value} is unknown")
    for value in (-1, 3, 2**40):
        refused(op, where, {"out_dtype": value}, error, f"out_dtype code {value} is unknown")


@pytest.mark.parametrize("op", ["int8_linear_group", "int8_mlp"])
def test_the_public_functions_alone(op: str) -> None:
    tanh = {"activation": ["tanh", "relu"] if op == "int8_linear_group" else "tanh"}
    message = "activation must be one of ('none', 'relu', 'gelu', 'gelu_tanh', 'silu'), but is"
    refused(op, "public", tanh, ValueError, f"{message} 'tanh'")
    int8 = f"out_dtype must be {FLOATS}, but is torch.int8"
    refused(op, "public", {"out_dtype": torch.int8}, TypeError, int8)


@pytest.mark.parametrize(
    ("op", "name"),
    [("int8_linear_group", "x"), ("int8_linear_group", "scale_w"), ("int8_linear_group", "bias"),
     *(("int8_mlp", n) for n in ("x", "scale_up", "bias_up", "scale_down", "residual"))],
)  # fmt: skip
def test_tensors_that_require_grad(op: str, name: str) -> None:
    make = group_arguments if op == "int8_linear_group" else mlp_arguments
    value = make("public")[name]
    value = [v.clone().requires_grad_() for v in value] if isinstance(value, list) else (
        value.clone().requires_grad_())  # fmt: skip
    message = f"{op} is for inference: an argument requires grad"
    with pytest.raises(ValueError, match=message):
        call(op, "public", make("public") | {name: value})
    with torch.no_grad():
        call(op, "public", make("public") | {name: value})


def test_weights_of_another_layout() -> None:
    by_layout = {r.layout: r.name for r in backends.implementations("int8_gemm") if r.available}
    if len(by_layout) < 2:
        pytest.skip("this build has one layout only")
    (first, a), (second, b) = list(by_layout.items())[:2]
    with backends.force("int8_gemm", a):
        group, mlp = group_arguments("public"), mlp_arguments("public")
    with backends.force("int8_gemm", b):
        own = mlp_arguments("public")
        message = f"the weight is packed as {first}, but kernel {b} takes {second}; pack it again"
        for op, arguments in (
            ("int8_linear_group", group),
            ("int8_linear_group", group | {"packed": [own["packed_up"], group["packed"][1]]}),
            ("int8_mlp", mlp),
            ("int8_mlp", own | {"packed_down": mlp["packed_down"]}),
            ("int8_mlp", own | {"packed_up": mlp["packed_up"]}),
        ):
            with pytest.raises(RuntimeError, match=re.escape(f"{op}: {message}")):
                call(op, "public", arguments)

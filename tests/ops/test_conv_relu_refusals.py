"""What ``conv_relu`` refuses, in whose words."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.ops.conv_relu_reference import conv_relu_fake, conv_relu_reference

X, WEIGHT = torch.zeros(2, 6, 5, 4), torch.zeros(8, 3, 3, 2)
SHAPE = [8, 3, 3, 2]
DTYPE_NAMES = "torch.float32 or torch.bfloat16"
# What is given to the dispatcher op, the error of the public function, the words of both.
BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("float16", {"x": X.half()}, TypeError, f"x must be {DTYPE_NAMES}, but is torch.float16"),
    ("3-D", {"x": X[0]}, ValueError, "x must be 4-D [N, C, H, W], but is 3-D"),
    (
        "channels",
        {"x": X[:, :5]},
        ValueError,
        "x has 5 channels, which is no multiple of the weight's 3",
    ),
    (
        "3 sizes",
        {"weight_shape": [8, 3, 3]},
        ValueError,
        "weight_shape must be 4 positive sizes [OC, C / groups, KH, KW], but is [8, 3, 3]",
    ),
    (
        "size 0",
        {"weight_shape": [8, 3, 0, 2]},
        ValueError,
        "weight_shape must be 4 positive sizes [OC, C / groups, KH, KW], but is [8, 3, 0, 2]",
    ),
    (
        "groups",
        {"x": torch.zeros(2, 9, 5, 4)},
        ValueError,
        "groups must divide the 8 output channels, but is 3",
    ),
    (
        "stride",
        {"stride": [1, 0]},
        ValueError,
        "stride must be in [1, 1048576], but 0 given",
    ),
    (
        "padding",
        {"padding": [0, 0, 0, -1]},
        ValueError,
        "padding must be in [0, 1048576], but -1 given",
    ),
    (
        "dilation",
        {"dilation": [0, 1]},
        ValueError,
        "dilation must be in [1, 1048576], but 0 given",
    ),
    (
        "window",
        {"dilation": [3, 1]},
        ValueError,
        "a window of 3 x 2 does not fit into the padded input",
    ),
    (
        "bias dtype",
        {"bias": torch.zeros(8).bfloat16()},
        TypeError,
        "bias must be torch.float32, but is torch.bfloat16",
    ),
    ("bias shape", {"bias": torch.zeros(7)}, ValueError, "bias must be [8], but is [7]"),
    (
        "residual dtype",
        {"residual": torch.zeros(2, 8, 3, 3).bfloat16()},
        TypeError,
        "residual must have the dtype of x, torch.float32, but is torch.bfloat16",
    ),
    (
        "residual shape",
        {"residual": torch.zeros(2, 8, 3, 4)},
        ValueError,
        "residual must be [2, 8, 3, 3] like the output, but is [2, 8, 3, 4]",
    ),
    ("activation", {"activation": 8}, ValueError, "activation code 8 is unknown"),
    (
        "slope missing",
        {"activation": 7},
        ValueError,
        "slope goes with the activation leaky_relu",
    ),
    (
        "slope given",
        {"slope": torch.zeros(1)},
        ValueError,
        "slope goes with the activation leaky_relu",
    ),
    (
        "slope shape",
        {"activation": 7, "slope": torch.zeros(2)},
        ValueError,
        "slope must be [1] or [8], but is [2]",
    ),
    (
        "slope dtype",
        {"activation": 7, "slope": torch.zeros(1).double()},
        TypeError,
        "slope must be torch.float32, but is torch.float64",
    ),
    (
        "packed",
        {"packed": torch.zeros(9)},
        TypeError,
        "packed must be the 1-D torch.uint8 tensor that conv_relu_pack returns, "
        "but is 1-D torch.float32",
    ),
    (
        "meta bias",
        {"bias": torch.zeros(8, device="meta")},
        ValueError,
        "bias is on meta, but the first argument on cpu",
    ),
]


def arguments(**given: Any) -> dict[str, Any]:
    call: dict[str, Any] = {
        "x": X, "packed": ops.conv_relu_pack(WEIGHT, 2), "weight_shape": SHAPE, "stride": [1, 1],
        "padding": [0, 0, 0, 0], "dilation": [1, 1], "bias": None, "residual": None,
        "activation": 0, "low": 0.0, "high": 0.0, "slope": None,
    }  # fmt: skip
    return call | given


@pytest.mark.parametrize(
    ("given", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_refusals(given: dict[str, Any], error: type[Exception], message: str) -> None:
    call = arguments(**given)
    full = f"^{re.escape(f'conv_relu: {message}')}$"
    public = {k: v for k, v in call.items() if k not in ("low", "high")}
    if call["activation"] < 8:
        public["activation"] = ops.CONV_ACTIVATIONS[call["activation"]]
        with pytest.raises(error, match=full):
            ops.conv_relu(**public)
    for plain in (conv_relu_reference, conv_relu_fake):
        with pytest.raises(error, match=full):
            plain(**call)
    tensors = [t for t in call.values() if isinstance(t, Tensor)]
    if backends.compiled() and all(t.device.type == "cpu" for t in tensors):
        start = re.escape(f"conv_relu: {message[:15]}")
        with pytest.raises(RuntimeError, match=start):
            torch.ops.pyops.conv_relu(**call)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1.0, 0.0, "clamp needs low <= high, but they are 1 and 0"),
        (0.0, 1e39, "clamp needs bounds within float32, but they are 0 and 1e+39"),
    ],
)
def test_refused_bounds(low: float, high: float, message: str) -> None:
    call = arguments(activation=5, low=low, high=high)
    for plain in (conv_relu_reference, conv_relu_fake):
        with pytest.raises(ValueError, match=f"^{re.escape(f'conv_relu: {message}')}$"):
            plain(**call)
    if backends.compiled():
        with pytest.raises(RuntimeError, match=re.escape(f"conv_relu: {message}")):
            torch.ops.pyops.conv_relu(**call)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stride": (1, 2, 3)}, "stride must be 1 or 2 integers, but is (1, 2, 3)"),
        ({"padding": (1,)}, "padding must be 1, 2 or 4 integers or 'same', but is (1,)"),
        (
            {"padding": "same", "stride": 2},
            "padding as a string must be 'same', with stride 1, but is 'same' with stride [2, 2]",
        ),
        (
            {"padding": "valid"},
            "padding as a string must be 'same', with stride 1, but is 'valid' with stride [1, 1]",
        ),
        (
            {"activation": "tanh"},
            f"activation must be one of {ops.CONV_ACTIVATIONS}, but is 'tanh'",
        ),
        (
            {"activation": "relu", "high": 6.0},
            "low and high are for 'clamp', not for 'relu'",
        ),
        (
            {"activation": "clamp", "high": 6.0},
            "'clamp' takes low <= high, but low is None and high is 6.0",
        ),
        (
            {"activation": "clamp", "low": 7.0, "high": 6.0},
            "'clamp' takes low <= high, but low is 7.0 and high is 6.0",
        ),
    ],
)
def test_refusals_of_the_public_function(given: dict[str, Any], message: str) -> None:
    packed = ops.conv_relu_pack(WEIGHT, 2)
    with pytest.raises(ValueError, match=f"^{re.escape(f'conv_relu: {message}')}$"):
        ops.conv_relu(X, packed, SHAPE, **given)


def test_packs_refuse() -> None:
    for weight, groups, error, message in (
        (WEIGHT.half(), 1, TypeError, f"weight must be {DTYPE_NAMES}, but is torch.float16"),
        (WEIGHT[0], 1, ValueError, "weight must be 4-D [OC, C / groups, KH, KW], but is 3-D"),
        (WEIGHT, 3, ValueError, "groups must divide the 8 output channels, but is 3"),
        (WEIGHT, 0, ValueError, "groups must divide the 8 output channels, but is 0"),
    ):
        with pytest.raises(error, match=f"^{re.escape(f'conv_relu_pack: {message}')}$"):
            ops.conv_relu_pack(weight, groups)


def test_a_weight_of_another_kind_is_refused() -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"weight is torch\.float32, which"):
        ops.conv_relu(X.bfloat16(), ops.conv_relu_pack(WEIGHT, 2), SHAPE)
    with pytest.raises((RuntimeError, ValueError), match=r"packed weight is \[8, 3, 2, 3\], but"):
        ops.conv_relu(X, ops.conv_relu_pack(WEIGHT.mT.contiguous(), 2), SHAPE)
    with pytest.raises((RuntimeError, ValueError), match="packed for 1 groups, but x has 6"):
        ops.conv_relu(X, ops.conv_relu_pack(WEIGHT), SHAPE)
    packed = ops.conv_relu_pack(WEIGHT, 2)
    for damaged, message in (
        (packed[:40].clone(), "shorter than its header of 64"),
        (torch.zeros(128, dtype=torch.uint8), "not made by conv_relu_pack"),
        (packed[:-4].clone(), "contradicts its header|bytes, expected"),
    ):
        with pytest.raises((RuntimeError, ValueError), match=message):
            ops.conv_relu(X, damaged, SHAPE)
    for at in range(8, 52):  # no damage of the header is read as a weight
        damaged = packed.clone()
        damaged[at] ^= 0x41
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            ops.conv_relu(X, damaged, SHAPE)


def test_gradients_are_refused() -> None:
    packed = ops.conv_relu_pack(WEIGHT, 2)
    with pytest.raises(ValueError, match="is for inference: an argument requires grad"):
        ops.conv_relu(X.clone().requires_grad_(), packed, SHAPE)
    with torch.no_grad():
        ops.conv_relu(X.clone().requires_grad_(), packed, SHAPE)

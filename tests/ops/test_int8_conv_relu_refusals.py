"""int8 convolutions refuse bad arguments, in the same words by every way to call them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.ops import int8_conv_packing
from pyops.ops.epilogue import CONV_ACTIVATION_CODE, OUT_DTYPE_CODE
from pyops.testing.cases.int8_conv_relu import DEFAULTS

X = torch.zeros(2, 6, 9, 8, dtype=torch.uint8)
W = torch.ones(5, 6, 3, 3, dtype=torch.int8)
OP = "int8_conv_relu"
FLOATS = "torch.float32, torch.bfloat16 or torch.float16"

# What is changed in a good call, the exception, its message.
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X.float()}, TypeError, "x must be torch.int8 or torch.uint8, but is torch.float32"),
    ({"x": X[0, 0]}, ValueError, "x must be 4-D [N, C, H, W], but is 2-D"),
    ({"x": X[:, :5]}, ValueError, "x has 5 channels, but the weight takes 6"),
    ({"x": X[:, :, :2]}, ValueError, "a window of 3 x 3 does not fit into the padded input"),
    (
        {"packed": torch.zeros(3)},
        TypeError,
        "packed must be the 1-D torch.uint8 tensor that int8_conv_pack returns, "
        "but is 1-D torch.float32",
    ),
    (
        {"weight_shape": (4, 6, 3, 3)},
        ValueError,
        "the packed weight is [5, 6, 3, 3], but weight_shape is [4, 6, 3, 3]",
    ),
    (
        {"weight_shape": (5, 6, 0, 3)},
        ValueError,
        "weight_shape must be [OC, C / groups, KH, KW], but is [5, 6, 0, 3]",
    ),
    (
        {"weight_shape": (5, 6, 3)},
        ValueError,
        "weight_shape must be [OC, C / groups, KH, KW], but is [5, 6, 3]",
    ),
    ({"stride": 0}, ValueError, "stride must be in [1, 1048576], but 0 given"),
    ({"dilation": (1, -1)}, ValueError, "dilation must be in [1, 1048576], but -1 given"),
    ({"padding": -1}, ValueError, "padding must be in [0, 1048576], but -1 given"),
    (
        {"padding": (1, 2, 3)},
        ValueError,
        "padding must be one integer or (h, w) or (top, bottom, left, right), but is (1, 2, 3)",
    ),
    (
        {"padding": "reflect"},
        ValueError,
        'padding must be integers, "valid" or "same", but is \'reflect\'; other modes than '
        "zeros need torch.nn.functional.pad before",
    ),
    (
        {"padding": "same", "stride": 2},
        ValueError,
        'padding "same" needs stride 1, but it is [2, 2]',
    ),
    ({"scale_x": 0.0}, ValueError, "scale_x must be positive and finite, but is 0.0"),
    ({"scale_x": torch.nan}, ValueError, "scale_x must be positive and finite, but is nan"),
    ({"zero_point_x": -1}, ValueError, "zero_point_x must be in [0, 255], but is -1"),
    ({"scale_w": torch.ones(4)}, ValueError, "scale_w must be [5], but is [4]"),
    ({"bias": torch.ones(5).half()}, TypeError, "bias must be torch.float32, but is torch.float16"),
    (
        {"residual": torch.zeros(2, 5, 7, 5)},
        ValueError,
        "residual must be [2, 5, 7, 6] like the output, but is [2, 5, 7, 5]",
    ),
    (
        {"residual": torch.zeros(2, 5, 7, 6, dtype=torch.int32)},
        TypeError,
        f"residual must be {FLOATS}, but is torch.int32",
    ),
    (
        {"residual": torch.zeros(2, 5, 7, 6), "residual_scale": 2.0},
        ValueError,
        "residual_scale and residual_zero_point are for int8 and uint8 residuals",
    ),
    (
        {"residual_zero_point": 2},
        ValueError,
        "residual_scale and residual_zero_point are for a residual",
    ),
    (
        {"activation": "tanh"},
        ValueError,
        f"activation must be one of {ops.CONV_ACTIVATIONS}, but is 'tanh'",
    ),
    (
        {"activation": "clamp", "low": 1.0},
        ValueError,
        "clamp needs low <= high, but they are 1 and 0",
    ),
    (
        {"activation": "clamp", "high": 1e300},
        ValueError,
        "clamp needs bounds within float32, but they are 0 and 1e+300",
    ),
    ({"activation": "leaky_relu"}, ValueError, "slope goes with the activation leaky_relu"),
    ({"slope": torch.ones(1)}, ValueError, "slope goes with the activation leaky_relu"),
    (
        {"activation": "leaky_relu", "slope": torch.ones(2)},
        ValueError,
        "slope must be [1] or [5], but is [2]",
    ),
    (
        {"out_dtype": torch.float64},
        TypeError,
        f"out_dtype must be {FLOATS[:30]}, torch.float16, torch.int8, torch.uint8 or torch.int32, "
        "but is torch.float64",
    ),
    (
        {"out_dtype": torch.uint8, "out_scale": -1.0},
        ValueError,
        "out_scale must be positive and finite, but is -1.0",
    ),
    (
        {"out_dtype": torch.int8, "out_zero_point": 200},
        ValueError,
        "out_zero_point must be in [-128, 127], but is 200",
    ),
    (
        {"out_scale": 2.0},
        ValueError,
        "out_scale and out_zero_point are for int8 and uint8 outputs, but out_dtype is "
        "torch.float32",
    ),
    (
        {"out_dtype": torch.int32, "bias": torch.ones(5)},
        ValueError,
        "out_dtype torch.int32 takes no scale, bias or residual",
    ),
    (
        {"out_dtype": torch.int32, "activation": "relu"},
        ValueError,
        "out_dtype torch.int32 takes no activation",
    ),
]


def call(changes: dict[str, Any], packed: Tensor) -> Tensor:
    arguments: dict[str, Any] = {"x": X, "packed": packed, "weight_shape": W.shape} | changes
    return ops.int8_conv_relu(**arguments)


@pytest.mark.parametrize("at", range(len(REFUSED)))
def test_refused(at: int) -> None:
    changes, kind, message = REFUSED[at]
    if message.startswith("out_dtype must be"):
        message = message.replace(f"{FLOATS[:30]}, torch.float16", FLOATS)
    with pytest.raises(kind) as by_kernel:
        call(changes, ops.int8_conv_pack(W))
    assert str(by_kernel.value) == f"{OP}: {message}"


# Forms of arguments that only the public function knows.
FORMS = ("padding must be one", "padding must be integers", 'padding "same"')


@pytest.mark.parametrize(
    "at", [at for at, (_, _, message) in enumerate(REFUSED) if not message.startswith(FORMS)]
)
def test_refused_by_the_reference_too(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain-torch op, as another device runs it."""
    changes = REFUSED[at][0]
    plain = int8_conv_packing.pack_conv_plain(W, 1)
    from pyops.ops import int8_conv_relu_reference as references

    class Op:
        default = staticmethod(references.int8_conv_relu_reference)

    monkeypatch.setattr(torch.ops.pyops, "int8_conv_relu", Op)
    with pytest.raises((TypeError, ValueError)) as by_reference:
        call(changes, plain)
    assert f"{OP}: " in str(by_reference.value)


@pytest.mark.skipif(not backends.compiled(), reason="there is no kernel to refuse")
@pytest.mark.parametrize("at", range(len(REFUSED)))
def test_refused_by_the_kernel_itself(at: int) -> None:
    """Each bad call that reaches the dispatcher's op is refused before a pointer is touched."""
    changes, _, _ = REFUSED[at]
    plain = {"x": X, "packed": ops.int8_conv_pack(W), "weight_shape": W.shape}
    arguments: dict[str, Any] = plain | DEFAULTS | changes
    listed = {
        key: [value] * count if isinstance(value := arguments.pop(key), int) else list(value)
        for key, count in (("stride", 2), ("padding", 4), ("dilation", 2))
        if not isinstance(arguments[key], str)
    }
    if len(listed) < 3 or arguments["activation"] == "tanh":
        return  # not a value of the dispatcher's op
    if arguments["out_dtype"] == torch.float64:
        return
    arguments["activation"] = CONV_ACTIVATION_CODE[arguments["activation"]]
    arguments["out_dtype"] = OUT_DTYPE_CODE[arguments["out_dtype"]]
    x, packed, shape = (arguments.pop(key) for key in ("x", "packed", "weight_shape"))
    with pytest.raises(RuntimeError, match=OP):
        torch.ops.pyops.int8_conv_relu.default(
            x, packed, list(shape), *listed.values(), *arguments.values()
        )


@pytest.mark.parametrize(
    ("weight", "groups", "kind", "message"),
    [
        (W.float(), 1, TypeError, "weight must be torch.int8, but is torch.float32"),
        (
            W[0, 0],
            1,
            ValueError,
            "weight must be 4-D [OC, C / groups, KH, KW], but is 2-D",
        ),
        (W, 2, ValueError, "groups is 2, which does not divide 5 output channels"),
        (W, 0, ValueError, "groups is 0, which does not divide 5 output channels"),
        (W[:, :, :0], 1, ValueError, "the window is empty"),
        (
            torch.zeros(1, 65537, 1, 1, dtype=torch.int8),
            1,
            ValueError,
            "KH * KW * C / groups is 65537, but at most 65536 is exact in int32",
        ),
    ],
)
def test_pack_refuses(weight: Tensor, groups: int, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        ops.int8_conv_pack(weight, groups)
    assert str(error.value) == f"int8_conv_pack: {message}"
    if kind is ValueError and weight.dim() == 4 and backends.compiled():
        with pytest.raises(RuntimeError, match="int8_conv_pack"):
            torch.ops.pyops.int8_conv_pack.default(weight, groups)


@pytest.mark.skipif(not backends.compiled(), reason="the reference packs no panels")
def test_damaged_bytes_are_refused() -> None:
    """Every bit of the headers and of the table of groups, one at a time."""
    weight = torch.ones(6, 2, 3, 3, dtype=torch.int8)
    packed = ops.int8_conv_pack(weight, 2)
    x = torch.zeros(1, 4, 5, 5, dtype=torch.uint8)
    expected = ops.int8_conv_relu(x, packed, weight.shape)
    for byte in [*range(64 + 24), *range(128, 128 + 48)]:
        for bit in range(8):
            damaged = packed.clone()
            damaged[byte] ^= 1 << bit
            try:
                out = ops.int8_conv_relu(x, damaged, weight.shape)
            except (RuntimeError, ValueError):
                continue
            assert torch.equal(out, expected), f"byte {byte} bit {bit}"
    for length in (0, 8, 63, 64, 100, packed.numel() - 64):
        with pytest.raises((RuntimeError, ValueError)):
            ops.int8_conv_relu(x, packed[:length].clone(), weight.shape)


def test_gradients_are_refused() -> None:
    bias = torch.zeros(5, requires_grad=True)
    with pytest.raises(ValueError, match="int8_conv_relu is for inference"):
        call({"bias": bias}, ops.int8_conv_pack(W))
    with torch.no_grad():
        call({"bias": bias}, ops.int8_conv_pack(W))

"""Refusals, tracing and schemas of the sparse_gemm ops."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from pyops import ops
from pyops.ops import sparse_gemm_reference as plain

WEIGHT = torch.eye(6, 8)
PACKED = ops.sparse_pack(WEIGHT)
X = torch.ones(3, 8)

REFUSALS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("sparse_pack", {"weight": WEIGHT.half()}, TypeError,
     "sparse_pack: weight must be torch.float32, torch.bfloat16 or torch.int8, but is "
     "torch.float16"),
    ("sparse_pack", {"weight": WEIGHT[0]}, ValueError,
     "sparse_pack: weight must be 4-D [OC, C / groups, KH, KW], but is 1-D"),
    ("sparse_pack", {"weight": WEIGHT, "groups": 4}, ValueError,
     "sparse_pack: groups must divide the 6 output channels, but is 4"),
    ("sparse_unpack", {"packed": X, "weight_shape": [6, 8]}, TypeError,
     "sparse_unpack: packed must be the 1-D torch.uint8 tensor that sparse_pack returns, but is "
     "2-D torch.float32"),
    ("sparse_unpack", {"packed": PACKED, "weight_shape": [6, 8], "dtype": torch.half}, TypeError,
     "sparse_unpack: dtype must be torch.float32, torch.bfloat16 or torch.int8, but is "
     "torch.float16"),
    ("sparse_refresh", {"packed": PACKED, "weight": WEIGHT[0], "transposed": True}, ValueError,
     "sparse_refresh: weight must be 2-D [K, N], but is 1-D"),
    ("sparse_linear", {"x": X.double(), "packed": PACKED, "n": 6}, TypeError,
     "sparse_linear: x must be torch.float32 or torch.bfloat16, but is torch.float64"),
    ("sparse_linear", {"x": torch.ones(()), "packed": PACKED, "n": 6}, ValueError,
     "sparse_linear: x must have at least 1 dimension, but has 0"),
    ("sparse_linear", {"x": X, "packed": PACKED, "n": 6, "bias": torch.ones(5)}, ValueError,
     "sparse_linear: bias must be [6], but is [5]"),
    ("sparse_linear", {"x": X, "packed": PACKED, "n": 6, "residual": torch.ones(3, 5)}, ValueError,
     "sparse_linear: residual must be [3, 6], but is [3, 5]"),
    ("sparse_linear", {"x": X, "packed": PACKED, "n": 6, "residual": torch.ones(3, 6).bfloat16()},
     TypeError, "sparse_linear: residual must have the dtype of x, torch.float32, but is "
     "torch.bfloat16"),
    ("sparse_linear", {"x": X, "packed": PACKED, "n": 6, "activation": "tanh"}, ValueError,
     f"sparse_linear: activation must be one of {ops.ACTIVATIONS}, but is 'tanh'"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments", "error", "told"), REFUSALS, ids=lambda v: str(v)[:40])
def test_refusals(op: str, arguments: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(told)}$"):
        getattr(ops, op)(**arguments)


@pytest.mark.parametrize(
    ("x", "n", "told"),
    [
        (
            torch.ones(3, 7),
            6,
            "[6, 8, 1, 1], but weight_shape is [6, 7, 1, 1]",
        ),
        (X, 5, "[6, 8, 1, 1], but weight_shape is [5, 8, 1, 1]"),
        (
            X.bfloat16(),
            6,
            "torch.float32, which goes with x of the same dtype",
        ),
    ],
)
def test_weights_of_another_shape(x: torch.Tensor, n: int, told: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(told)):
        ops.sparse_linear(x, PACKED, n)


def test_grad_is_refused() -> None:
    told = "sparse_linear is for inference: an argument requires grad"
    with pytest.raises(ValueError, match=told):
        ops.sparse_linear(X.clone().requires_grad_(), PACKED, 6)


def test_a_dense_weight_is_refused() -> None:
    packed = ops.conv_relu_pack(WEIGHT[..., None, None])
    with pytest.raises(RuntimeError, match=r"packed must be the 1-D torch\.uint8"):
        ops.sparse_linear(X, packed, 6)


def test_opcheck() -> None:
    image = WEIGHT[..., None, None].contiguous()
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (torch.ops.pyops.sparse_unpack.default, (PACKED, [6, 8, 1, 1], 0)),
        (torch.ops.pyops.sparse_refresh.default, (PACKED.clone(), image, False)),
        (torch.ops.pyops.sparse_linear.default, (X, PACKED, 6, torch.ones(6), torch.ones(3, 6), 1)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op, arguments)
    # The fake of a pack cannot know how many bytes it takes.
    tests = ("test_schema", "test_autograd_registration")
    torch.library.opcheck(torch.ops.pyops.sparse_pack.default, (image, 1), test_utils=tests)


def test_compiled_without_breaks() -> None:
    def net(x: torch.Tensor) -> torch.Tensor:
        return ops.sparse_linear(x, PACKED, 6, activation="relu") + 1

    with torch.no_grad():
        got = torch.compile(net, fullgraph=True, backend="aot_eager")(X)
    assert torch.equal(got, net(X))


def test_the_reference_computes_the_same() -> None:
    image = WEIGHT[..., None, None]
    packed = plain.sparse_pack_reference(image, 1)
    out = plain.sparse_linear_reference(X, packed, 6, torch.ones(6), None, 1)
    assert torch.equal(out, ops.sparse_linear(X, PACKED, 6, bias=torch.ones(6), activation="relu"))
    new = 3 * image
    plain.sparse_refresh_reference(packed, new, False)
    assert torch.equal(plain.sparse_unpack_reference(packed, [6, 8, 1, 1], 0), new)
    plain.sparse_refresh_reference(packed, image.flatten(1).t().contiguous(), True)
    assert torch.equal(plain.sparse_unpack_reference(packed, [6, 8, 1, 1], 0), image)

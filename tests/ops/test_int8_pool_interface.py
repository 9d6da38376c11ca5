"""The ops on codes as users and torch meet them: errors, memory formats, fakes, compile, export."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyops import backends, ops
from pyops.testing.cases.int8_pool import OPS, CodesCase, codes_case
from pyops.testing.compare import assert_same

X = torch.zeros(2, 6, 8, 9, dtype=torch.uint8)
FLOAT = torch.zeros(2, 6, 8, 9)
OUTPUTS = (
    "[torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8], but is torch.int32"
)

BAD: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("pool dtype", lambda: ops.int8_pool(FLOAT, 2, out_dtype=torch.uint8), TypeError,
     "int8_pool: x must be torch.uint8 or torch.int8, but is torch.float32"),
    ("pool 3-D", lambda: ops.int8_pool(X[0], 2), ValueError,
     "int8_pool: x must be 4-D [N, C, H, W], but is 3-D"),
    ("kind", lambda: ops.int8_pool(X, 2, kind="mean"), ValueError,
     "int8_pool: kind must be one of ('max', 'average'), but is 'mean'"),
    ("kernel", lambda: ops.int8_pool(X, (2, 2, 2)), ValueError,
     "int8_pool: kernel must be 1 integer or 2, but is (2, 2, 2)"),
    ("kernel 0", lambda: ops.int8_pool(X, 0), ValueError,
     "int8_pool: kernel must be 2 integers of at least 1, but is [0, 0]"),
    ("stride 0", lambda: ops.int8_pool(X, 2, stride=(1, 0)), ValueError,
     "int8_pool: stride must be 2 integers of at least 1, but is [1, 0]"),
    ("padding 3", lambda: ops.int8_pool(X, 2, padding=(1, 1, 1)), ValueError,
     "int8_pool: padding must be 1 integer, 2 or 4, but is (1, 1, 1)"),
    ("padding -1", lambda: ops.int8_pool(X, 2, padding=-1), ValueError,
     "int8_pool: padding must be 4 integers of at least 0, but is [-1, -1, -1, -1]"),
    ("padding", lambda: ops.int8_pool(X, 3, padding=2), ValueError,
     "int8_pool: padding may be at most half the window, 1, but is 2"),
    ("window", lambda: ops.int8_pool(X, 9), ValueError,
     "int8_pool: the window is larger than the padded image"),
    ("divisor", lambda: ops.int8_pool(X, 2, divisor_override=0), ValueError,
     "int8_pool: divisor_override must be at least 1, but is 0"),
    ("scale", lambda: ops.int8_pool(X, 2, scale_x=0.0), ValueError,
     "int8_pool: scale_x must be positive and finite, but is 0.0"),
    ("zero", lambda: ops.int8_pool(X, 2, zero_point_x=256), ValueError,
     "int8_pool: zero_point_x must be in [0, 255], but is 256"),
    ("out scale", lambda: ops.int8_pool(X, 2, out_scale=float("inf")), ValueError,
     "int8_pool: out_scale must be positive and finite, but is inf"),
    ("float out", lambda: ops.int8_pool(X, 2, out_dtype=torch.float32, out_scale=2.0), ValueError,
     "int8_pool: out_scale and out_zero_point are for int8 and uint8 outputs, "
     "but out_dtype is torch.float32"),
    ("out dtype", lambda: ops.int8_pool(X, 2, out_dtype=torch.int32), TypeError,
     f"int8_pool: out_dtype must be one of {OUTPUTS}"),
    ("output size", lambda: ops.int8_adaptive_pool(X, (0, 1)), ValueError,
     "int8_adaptive_pool: output_size must be 2 integers of at least 1, but is [0, 1]"),
    ("no pixels", lambda: ops.int8_adaptive_pool(X[:, :, :0]), ValueError,
     "int8_adaptive_pool: x must have pixels, but is empty"),
    ("add shapes", lambda: ops.int8_add(X, X[:, :5]), ValueError,
     "int8_add: b must have the shape of a, [2, 6, 8, 9], but is [2, 5, 8, 9]"),
    ("add dtype", lambda: ops.int8_add(X, FLOAT), TypeError,
     "int8_add: b must be torch.uint8 or torch.int8, but is torch.float32"),
    ("add activation", lambda: ops.int8_add(X, X, activation="silu"), ValueError,
     "int8_add: activation must be one of ('none', 'relu', 'clamp'), but is 'silu'"),
    ("add clamp", lambda: ops.int8_add(X, X, activation="clamp", low=0.0), ValueError,
     "int8_add: low and high are for activation 'clamp', which takes both"),
    ("add order", lambda: ops.int8_add(X, X, activation="clamp", low=2.0, high=1.0), ValueError,
     "int8_add: low must be at most high, but 2.0 > 1.0"),
    ("add meta", lambda: ops.int8_add(X, X.to("meta")), ValueError,
     "int8_add: b is on meta, but the first argument on cpu"),
    ("concat none", lambda: ops.int8_concat([], scales=[], zero_points=[]), ValueError,
     "int8_concat: xs must hold at least 1 tensor, but is empty"),
    ("concat scales", lambda: ops.int8_concat([X, X], scales=[1.0], zero_points=[0, 0]),
     ValueError, "int8_concat: 2 tensors need as many scales and zero points, "
     "but there are 1 and 2"),
    ("concat shapes", lambda: ops.int8_concat([X, X[:1]], scales=[1, 1], zero_points=[0, 0]),
     ValueError, "int8_concat: xs[1] must have the shape of xs[0] but for dim 1, "
     "but is [1, 6, 8, 9]"),
    ("concat dim", lambda: ops.int8_concat([X], scales=[1], zero_points=[0], dim=4), ValueError,
     "int8_concat: dim 4 is not one of 4"),
    ("quantize dtype", lambda: ops.int8_quantize(X, scale=1.0), TypeError,
     "int8_quantize: x must be torch.float32, torch.bfloat16 or torch.float16, "
     "but is torch.uint8"),
    ("quantize to", lambda: ops.int8_quantize(FLOAT, scale=1.0, dtype=torch.int32), TypeError,
     "int8_quantize: dtype must be one of [torch.int8, torch.uint8], but is torch.int32"),
    ("quantize zero",
     lambda: ops.int8_quantize(FLOAT, scale=1.0, zero_point=128, dtype=torch.int8),
     ValueError, "int8_quantize: zero_point must be in [-128, 127], but is 128"),
    ("quantize grad", lambda: ops.int8_quantize(FLOAT.clone().requires_grad_(), scale=1.0),
     ValueError, "int8_quantize is for inference: an argument requires grad; "
     "call it under torch.inference_mode() or torch.no_grad(), or detach() it"),
    ("dequantize scale", lambda: ops.int8_dequantize(X, scale=float("nan")), ValueError,
     "int8_dequantize: scale must be positive and finite, but is nan"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def spoiled(case: CodesCase) -> list[CodesCase]:
    """The call with one argument after another replaced by one that no op takes."""
    found = []
    for i, argument in enumerate(case.arguments):
        for bad in {bool: [], int: [1 << 40, -(1 << 40)], float: [float("nan")]}.get(
            type(argument), [[]] if isinstance(argument, list) else []
        ):
            arguments = list(case.arguments)
            arguments[i] = bad
            found.append(CodesCase(case.op, arguments))
    return found


@pytest.mark.parametrize("op", OPS)
def test_kernels_references_and_fakes_refuse_the_same(op: str) -> None:
    """In the same words, but for what only Python can print."""
    if not backends.compiled():
        pytest.skip("nothing is compiled")
    refused = 0
    for case in spoiled(codes_case(op, 5, 6, 8, 9)):
        errors = []
        for run in (case.run, lambda c=case: c.plain("reference"), lambda c=case: c.plain("fake")):
            try:
                run()
                errors.append("")
            except (RuntimeError, TypeError, ValueError) as error:
                text = str(error)  # torch puts the place in front of what C++ says
                errors.append(text[text.find(f"{op}: ") :][:30])
        assert len({bool(e) for e in errors}) == 1, f"{case.label}: {errors}"
        assert errors[0] == errors[1] == errors[2], case.label
        refused += bool(errors[0])
    assert refused >= 4


@pytest.mark.parametrize("op", OPS)
def test_schema_and_fakes_agree_with_the_kernels(op: str) -> None:
    case = codes_case(op, 2, 6, 8, 9)
    torch.library.opcheck(getattr(torch.ops.pyops, op).default, tuple(case.arguments))


@pytest.mark.parametrize("op", OPS)
def test_memory_formats(op: str) -> None:
    """Any strides give the same codes; 4-D outputs are channels_last."""
    case = codes_case(op, 8, 6, 8, 9)
    expected = case.run()
    for change in (
        lambda t: t.contiguous(),
        lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.dim() > 1 else t,
        lambda t: torch.stack((t, t), -1)[..., 1],
    ):
        out = case.with_tensors(change).run()
        assert_same(out, expected, op)
        assert out.dim() != 4 or out.is_contiguous(memory_format=torch.channels_last)


class Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = ops.int8_quantize(x, scale=0.02, zero_point=128)
        small = ops.int8_pool(q, 3, stride=2, padding=1, scale_x=0.02, zero_point_x=128)
        mean = ops.int8_pool(
            q, 3, kind="average", stride=2, padding=1, scale_x=0.02, zero_point_x=128
        )
        both = ops.int8_add(
            small, mean, scale_a=0.02, zero_point_a=128, scale_b=0.02, zero_point_b=128,
            activation="relu", out_scale=0.03,
        )  # fmt: skip
        joined = ops.int8_concat(
            [both, mean], scales=[0.03, 0.02], zero_points=[0, 128], out_scale=0.03
        )
        pooled = ops.int8_adaptive_pool(joined, scale_x=0.03)
        return ops.int8_dequantize(pooled, scale=0.03)


@pytest.mark.slow
def test_compile_without_a_graph_break() -> None:
    x = torch.randn(2, 6, 9, 11)
    with torch.inference_mode():
        assert_same(torch.compile(Model(), fullgraph=True)(x), Model()(x), "compiled")


def test_export() -> None:
    x = torch.randn(2, 6, 9, 11)
    with torch.no_grad():
        exported = torch.export.export(Model(), (x,))
        assert_same(exported.module()(x), Model()(x), "exported")
    called = {str(node.target) for node in exported.graph.nodes}
    assert {f"pyops.{op}.default" for op in OPS} <= called

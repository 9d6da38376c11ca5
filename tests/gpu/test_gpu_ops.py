"""Every op on CUDA tensors, where plain torch computes it, against the CPU's kernels.

Integer products, the quantizer, the epilogue and norms are bit for bit the same. Sums of floats are
within the bounds that hold on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import ops
from pyops.ops import packing, weight_only_packing
from pyops.testing.cases.attention import FLOATS, MASKS, attention_case, causal_as_mask
from pyops.testing.cases.int8_gemm import gemm_case, linear_case, quantizer_inputs, random_codes
from pyops.testing.cases.int8_gemm_rows import llama_case, post_norm_case, random_rows
from pyops.testing.cases.weight_only import weight_case
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.devices import on_device

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
SIZES = (1, 2, 3, 7, 16, 17, 33, 64, 65, 130)


def shape_of(seed: int) -> tuple[int, int, int]:
    rng = torch.Generator().manual_seed(seed)
    m, n, k = (SIZES[int(torch.randint(len(SIZES), (), generator=rng))] for _ in range(3))
    return m, n, k


def assert_agrees(out: Tensor, ref: Tensor, label: str) -> None:
    assert out.device.type == "cuda", label
    assert_same(out.cpu(), ref, label)


@pytest.mark.parametrize("block", range(4))
def test_int8_gemm(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        case = gemm_case(seed, *shape_of(seed))
        assert_agrees(on_device(case, CUDA).run(), case.run(), f"seed {seed} {case.label}")


def test_int8_linear() -> None:
    for seed in range(200):
        case = linear_case(seed, *shape_of(seed))
        assert_agrees(on_device(case, CUDA).run(), case.run(), f"seed {seed} {case.label}")


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_int8_sums_are_exact_at_every_float32_precision(precision: str) -> None:
    """TF32 and bfloat16 hold every 8-bit code, and the sums that are taken at once fit float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for signed in (True, False):
            for extreme in (0, 1, 2):
                rng = torch.Generator().manual_seed(extreme)
                a = random_codes(rng, 130, packing.MAX_K, signed, extreme)
                w = random_codes(rng, 70, packing.MAX_K, True, extreme)
                packed = ops.int8_pack(w.to(CUDA))
                out = ops.int8_gemm(a.to(CUDA), packed, 70, out_dtype=torch.int32)
                exact = (a.double() @ w.double().T).to(torch.int32)  # below 2^53
                assert_agrees(out, exact, f"{precision} {signed} {extreme}")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("out", [torch.int8, torch.uint8])
def test_quantize_rows(dtype: torch.dtype, symmetric: bool, out: torch.dtype) -> None:
    many = torch.randn(3000, 50, generator=torch.Generator().manual_seed(5))
    for x in (*quantizer_inputs(), many):
        x = x.to(dtype)
        got = ops.quantize_rows(x.to(CUDA), symmetric=symmetric, dtype=out)
        expected = ops.quantize_rows(x, symmetric=symmetric, dtype=out)
        for name, a, b in zip(("q", "scale", "zero_point"), got, expected, strict=True):
            assert_agrees(a, b, f"{name} of {tuple(x.shape)}")


def test_int8_rows() -> None:
    cases = [random_rows(seed, (1, 2, 5, 17), [1, 8, 33, 64, 65, 100]) for seed in range(150)]
    cases += [post_norm_case(1, 9, 64, 96), llama_case(2, 9, 64, 96)]
    for number, case in enumerate(cases):
        for a, b in zip(on_device(case, CUDA).run(), case.run(), strict=True):
            assert_agrees(a, b, f"case {number} {case.label}")


@pytest.mark.parametrize("kind", range(7))
def test_weight_only(kind: int) -> None:
    for seed in range(60):
        case = weight_case(seed, *shape_of(seed), kind)
        exact, bound = case.exact()
        out = on_device(case, CUDA).run()
        assert out.dtype == case.out_dtype
        assert_within(out.cpu(), exact, bound, f"seed {seed} {case.label}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mask", MASKS)
def test_attention(dtype: torch.dtype, mask: str) -> None:
    shapes = [
        (2, 3, 3, 7, 9, 5),
        (1, 4, 2, 2, 33, 31),
        (1, 2, 1, 70, 130, 64),
        (1, 1, 1, 9, 600, 96),
    ]
    for seed, shape in enumerate(shapes):
        case = attention_case(seed, shape, dtype, mask)
        exact, bound = (causal_as_mask(case) if case.is_causal else case).exact()
        there = on_device(case, CUDA)
        out = there.run()
        assert_within(out.cpu(), exact, bound, case.label)
        q, k, v = (t.transpose(1, 2).flatten(2) for t in (there.q, there.k, there.v))
        rows = ops.attention_rows(
            q, k, v, there.mask, head_size=shape[5], scale=case.scale, is_causal=case.is_causal
        )
        assert_same(rows, out.transpose(1, 2).flatten(2), f"rows {case.label}")


def test_packing() -> None:
    """The layout is the one of the reference, and unpacking inverts it."""
    rng = torch.Generator().manual_seed(2)
    for n in SIZES:
        for k in (0, 1, 3, 64, 67):
            w = random_codes(rng, n, k, True, 0)
            packed = ops.int8_pack(w.to(CUDA))
            assert_agrees(packed, packing.pack_plain(w), f"N{n} K{k}")
            assert_agrees(ops.int8_unpack(packed, n, k), w, f"N{n} K{k}")
            packed = ops.int8_weight_pack(w.to(CUDA))
            assert_agrees(packed, weight_only_packing.pack_plain_int8(w), f"N{n} K{k}")
            assert_agrees(ops.int8_weight_unpack(packed, n, k), w, f"N{n} K{k}")
    for kind in range(1, 7):
        case = weight_case(kind, 1, 33, 131, kind)
        packed = on_device(case, CUDA).pack()
        size, zeros = case.group_size, case.zero is not None
        plain = weight_only_packing.pack_plain_int4(case.codes, case.scale, case.zero, size)
        assert_agrees(packed, plain, case.label)
        found = ops.int4_unpack(packed, 33, 131, group_size=size, zeros=zeros)
        for a, b in zip(found, (case.codes, case.scale, case.zero), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert_agrees(a, b, case.label)


@pytest.mark.parametrize("dtype", FLOATS)
def test_weight_quantizers(dtype: torch.dtype) -> None:
    w = torch.randn(300, 200, generator=torch.Generator().manual_seed(3)).to(dtype)
    for a, b in zip(ops.quantize_weight(w.to(CUDA)), ops.quantize_weight(w), strict=True):
        assert_agrees(a, b, "int8")
    got = ops.quantize_weight_int4(w.to(CUDA), 64, symmetric=False)
    for a, b in zip(got, ops.quantize_weight_int4(w, 64, symmetric=False), strict=True):
        assert a is not None
        assert b is not None
        assert_agrees(a, b, "int4 with zero points")


def test_the_int4_search_finds_an_error_as_small() -> None:
    """Two ranges of equal error, but for the order of a sum, may be taken for one another.

    A sum of 64 squares, each rounded twice, is off by less than 66 * 2^-24 of itself.
    """
    w = torch.randn(300, 256, generator=torch.Generator().manual_seed(3))

    def error(found: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
        codes, scale, _ = (None if t is None else t.cpu().double() for t in found)
        assert codes is not None
        assert scale is not None
        off = codes * scale.repeat_interleave(64, 1) - w.double()
        return off.square().unflatten(1, (-1, 64)).sum(-1)

    expected = error(ops.quantize_weight_int4(w, 64))
    assert_within(
        error(ops.quantize_weight_int4(w.to(CUDA), 64)), expected, 132 * 2.0**-24 * expected, "int4"
    )


@pytest.mark.parametrize(("m", "n", "k"), [(0, 5, 7), (3, 0, 7), (3, 5, 0), (0, 0, 0)])
def test_empty_sizes(m: int, n: int, k: int) -> None:
    for case in (gemm_case(1, m, n, k), linear_case(2, m, n, k)):
        assert_agrees(on_device(case, CUDA).run(), case.run(), case.label)
    for kind in range(7):
        weights = weight_case(3, m, n, k, kind)
        exact, bound = weights.exact()
        assert_within(on_device(weights, CUDA).run().cpu(), exact, bound, weights.label)


def _mixed() -> dict[str, tuple[Callable[[], Any], str]]:
    x, w = torch.randn(3, 64), torch.ones(5, 64, dtype=torch.int8)
    scale, there = torch.ones(5), x.to(CUDA)
    program = ops.RowProgram(inputs=2)
    program.returns(program.layer_norm(0, eps=1e-5))
    q = torch.randn(1, 1, 3, 8)
    zero = torch.zeros(5, 2, dtype=torch.uint8)
    other = "is on cpu, but the first argument on cuda:0"
    back = "is on cuda:0, but the first argument on cpu"
    packed, weight_packed = ops.int8_pack(w.to(CUDA)), ops.int8_weight_pack(w.to(CUDA))
    return {
        "int8_linear x": (lambda: ops.int8_linear(x, packed, scale), f"int8_linear: packed {back}"),
        "int8_linear scale": (
            lambda: ops.int8_linear(there, packed, scale),
            f"int8_linear: scale_w {other}",
        ),
        "int8_linear packed": (
            lambda: ops.int8_linear(there, ops.int8_pack(w), scale.to(CUDA)),
            f"int8_linear: packed {other}",
        ),
        "int8_gemm bias": (
            lambda: ops.int8_gemm(w.to(CUDA), packed, 5, bias=scale),
            f"int8_gemm: bias {other}",
        ),
        "int8_rows input": (
            lambda: ops.int8_rows(program, [there, x], [scale, scale]),
            f"int8_rows: inputs[1] {other}",
        ),
        "int8_rows norm": (
            lambda: ops.int8_rows(program, [there, there], [torch.ones(64), torch.ones(64)]),
            f"int8_rows: weight {other}",
        ),
        "weight only": (
            lambda: ops.int8_weight_linear(there, weight_packed, scale),
            f"int8_weight_linear: scale_w {other}",
        ),
        "int4_pack": (
            lambda: ops.int4_pack(
                torch.zeros(5, 64, dtype=torch.uint8, device=CUDA),
                torch.ones(5, 2, device=CUDA),
                zero,
                group_size=32,
            ),
            f"int4_pack: zero {other}",
        ),
        "attention": (
            lambda: ops.attention(q.to(CUDA), q, q.to(CUDA)),
            "attention: k is on cpu, but q on cuda:0",
        ),
        "attention mask": (
            lambda: ops.attention(q, q, q, torch.zeros(3, 3, device=CUDA)),
            "attention: mask is on cuda:0, but q on cpu",
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "int8_linear x",
        "int8_linear scale",
        "int8_linear packed",
        "int8_gemm bias",
        "int8_rows input",
        "int8_rows norm",
        "weight only",
        "int4_pack",
        "attention",
        "attention mask",
    ],
)
def test_tensors_on_two_devices_are_refused(name: str) -> None:
    call, message = _mixed()[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_opcheck() -> None:
    """Schema, fake and dispatch, with CUDA tensors."""
    torch.manual_seed(0)
    w = torch.randint(-127, 128, (5, 64), dtype=torch.int8, device=CUDA)
    x, scale = torch.randn(3, 64, device=CUDA), torch.rand(5, device=CUDA) + 0.1
    calls = {
        "quantize_rows": (x, True, True),
        "int8_linear": (x, ops.int8_pack(w), scale, scale, None, 1, 0),
        "int8_weight_linear": (x, ops.int8_weight_pack(w), scale, None, None, 0, 1),
        "attention_rows": (x[None], x[None], x[None], None, 8, 0.5, True),
    }
    for name, arguments in calls.items():
        torch.library.opcheck(getattr(torch.ops.pyops, name).default, arguments)

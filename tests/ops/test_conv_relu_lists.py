"""Sparse weights whose k outputs share, in panels (``sparse_gemm/blocks.h``), on every kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.testing.cases.conv_relu import DTYPES, ConvCase
from pyops.testing.cases.sparse_gemm import LinearCase, in_panels, masked
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.guarded import guarded
from pyops.testing.threads import on_threads

# Tokens, outputs, k: around tiles, panels of 32 and 16, columns of x, odd k for pairs, 4 KiB.
SHAPES = (
    (1, 64, 96),
    (3, 60, 129),
    (13, 70, 257),
    (14, 96, 64),
    (15, 300, 1025),
    (29, 256, 2048),
    (65, 40, 771),
    (130, 320, 1030),
)
# OC, C, groups, kernel, stride, padding, dilation.
CONVS = (
    (64, 48, 1, (1, 1), 1, 0, 1),
    (64, 32, 1, (3, 3), 1, 1, 1),
    (96, 24, 1, (3, 3), 2, 1, 1),
    (70, 20, 1, (3, 2), 1, 2, 2),
    (128, 64, 2, (3, 3), 1, 1, 1),
    (66, 33, 3, (1, 1), 1, 0, 1),
    (32, 1024, 1, (1, 3), 1, 1, 1),
    (64, 3, 1, (3, 3), 1, 1, 1),
)


@pytest.fixture(autouse=True)
def _token_lanes_of_float32() -> Iterator[None]:
    """Pairs of bfloat16 in token lanes are cheap enough to be taken for some of these weights."""
    with backends.force("sparse_gemm", "generic"):
        yield


def blocked(weight: Tensor, density: float, outputs: int, seed: int, depth: int = 1) -> Tensor:
    """``weight [N, K, ...]`` in blocks of ``outputs`` by ``depth`` values of the second size."""
    n, k = weight.shape[:2]
    few = torch.zeros(n, -(-k // depth), *weight.shape[2:]) + 1
    kept = masked(few, density, outputs, seed).repeat_interleave(depth, 1)[:, :k]
    return torch.where(kept != 0, weight, torch.zeros((), dtype=weight.dtype))


def linear(m: int, n: int, k: int, dtype: torch.dtype, outputs: int, seed: int) -> LinearCase:
    rng = torch.Generator().manual_seed(seed)
    weight = blocked(torch.randn(n, k, generator=rng), 0.2, outputs, seed, 1 + seed % 2).to(dtype)
    return LinearCase(torch.randn(m, k, generator=rng).to(dtype), weight)


def conv(index: int, dtype: torch.dtype, outputs: int = 32) -> ConvCase:
    oc, c, groups, kernel, stride, padding, dilation = CONVS[index]
    rng = torch.Generator().manual_seed(index)
    weight = blocked(torch.randn(oc, c // groups, *kernel, generator=rng), 0.2, outputs, index, 2)
    x = torch.randn(2, c, 9, 11, generator=rng).to(dtype)
    case = ConvCase(x.contiguous(memory_format=torch.channels_last), weight.to(dtype))
    case.stride, case.padding = (stride, stride), (padding,) * 4
    case.dilation, case.groups = (dilation, dilation), groups
    case.bias, case.algorithm = torch.randn(oc, generator=rng), "sparse"
    return case


def check(case: ConvCase | LinearCase, packed: Tensor, label: str) -> None:
    exact, bound = case.exact()
    assert_within(case.run(packed), exact, bound, f"{label} {case.label}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [16, 32])
def test_linears(kernel: str, dtype: torch.dtype, outputs: int) -> None:
    for seed, (m, n, k) in enumerate(SHAPES):
        case = linear(m, n, k, dtype, outputs, seed)
        case.bias = torch.randn(n) if seed % 2 else None
        case.activation = ("none", "relu", "gelu")[seed % 3]
        packed = ops.sparse_pack(case.weight)
        assert in_panels(packed), f"{kernel} {case.label}"
        check(case, packed, kernel)


@pytest.mark.parametrize("dtype", DTYPES)
def test_convolutions(kernel: str, dtype: torch.dtype) -> None:
    forms = set()
    for index in range(len(CONVS)):
        case = conv(index, dtype)
        packed = case.pack()
        forms.add(in_panels(packed))
        check(case, packed, kernel)
        back = ops.conv_relu_unpack(packed, case.weight.shape, dtype)
        assert_same(back, case.weight, f"{kernel} {case.label}")
    assert True in forms


def test_which_weights_are_held_in_panels(kernel: str) -> None:
    for outputs, density, expected in ((1, 0.1, kernel == "odd"), (32, 0.1, True)):  # odd: of 2
        packed = ops.sparse_pack(masked(torch.randn(128, 200), density, outputs, 0))
        assert in_panels(packed) == expected, (kernel, outputs, density)


@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_without_entries(kernel: str, dtype: torch.dtype) -> None:
    weight = torch.zeros(192, 80)
    case = LinearCase(torch.randn(20, 80).to(dtype), weight.to(dtype), torch.randn(192))
    check(case, ops.sparse_pack(case.weight), kernel)
    weight[64:96, 5:9] = 1.5
    case.weight = weight.to(dtype)
    packed = ops.sparse_pack(case.weight)
    assert in_panels(packed)
    check(case, packed, kernel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_new_values_reach_entries_alone(kernel: str, dtype: torch.dtype, transposed: bool) -> None:
    """What only fills a block stays 0, and an entry that becomes 0 stays one."""
    weight = blocked(torch.randn(96, 130), 0.3, 32, 0)
    weight = torch.where(torch.rand(96, 130) < 0.9, weight, 0).to(dtype)
    given = weight.t().contiguous() if transposed else weight
    packed = ops.sparse_pack(weight)
    assert in_panels(packed)
    new = torch.randn(given.shape).to(dtype)
    for values in (torch.zeros_like(given), new):
        ops.sparse_refresh(packed, values, transposed=transposed)
        expected = torch.where(given != 0, values, 0)
        back = ops.sparse_unpack(packed, [96, 130], dtype)
        assert torch.equal(back.t() if transposed else back, expected), kernel
    case = LinearCase(torch.randn(20, 130).to(dtype), ops.sparse_unpack(packed, [96, 130], dtype))
    check(case, packed, kernel)


def test_results_do_not_depend_on_threads(kernel: str) -> None:
    """Panels of very different lengths, so that threads take different numbers of them."""
    weight = masked(torch.randn(640, 300), 0.1, 32, 0)
    weight[:64] = torch.randn(64, 300)
    cases: list[ConvCase | LinearCase] = [
        LinearCase(torch.randn(m, 300).to(dtype), weight.to(dtype))
        for dtype in DTYPES
        for m in (1, 5, 70)
    ]
    cases += [conv(1, dtype) for dtype in DTYPES]
    with on_threads(1):
        want = [case.run() for case in cases]
    for threads in (2, 3, 7):
        with on_threads(threads):
            for case, out in zip(cases, want, strict=True):
                assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_read_behind_a_buffer(kernel: str, dtype: torch.dtype) -> None:
    for seed, (m, n, k) in enumerate(SHAPES):
        keep: list[object] = []
        case = linear(m, n, k, dtype, 32, seed)
        want = case.run()
        case.x = guarded(case.x, keep)
        packed = guarded(ops.sparse_pack(guarded(case.weight, keep)), keep)
        assert_same(case.run(packed), want, f"{kernel} {case.label}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite(kernel: str, value: float) -> None:
    """It reaches every output that has an entry for it, and no panel that has none."""
    weight = torch.zeros(192, 90)
    weight[64:96, 7] = 2.0
    weight[128:160, 30:40] = 1.0
    x = torch.ones(30, 90)
    x[5, 7] = value
    packed = ops.sparse_pack(weight)
    assert in_panels(packed)
    reached = ~LinearCase(x, weight).run(packed).isfinite()
    assert reached[5, 64:96].all(), kernel
    assert not reached[5, :64].any(), kernel
    assert not reached[5, 128:].any(), kernel
    assert not reached[torch.arange(30) != 5].any(), kernel


@pytest.mark.parametrize("dtype", DTYPES)
def test_damaged_bytes_are_refused_or_harmless(kernel: str, dtype: torch.dtype) -> None:
    case = conv(1, dtype)
    packed = case.pack()
    assert in_panels(packed)
    first = int(packed[64:72].view(torch.int64))
    for at in (first + 3, first + 35, first + 36 + 1):  # counts, and a place
        keep: list[object] = []
        bytes_ = guarded(packed, keep)
        bytes_[at] = 255
        with pytest.raises(RuntimeError, match="its lists of k are damaged"):
            case.run(bytes_)
    rng = torch.Generator().manual_seed(0)
    refused = 0
    for trial in range(60):
        keep = []
        bytes_ = guarded(packed, keep)
        where = torch.randint(12 if trial % 2 else first, packed.numel(), (9,), generator=rng)
        bytes_[where] = torch.randint(0, 256, (9,), generator=rng).to(torch.uint8)
        try:
            assert case.run(bytes_).shape == case.run(packed).shape
            ops.sparse_refresh(bytes_, case.weight)
        except RuntimeError:
            refused += 1
    assert refused < 60

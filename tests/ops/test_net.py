"""run_net: programs of int8 steps, against one op after another."""

from __future__ import annotations

import pytest
import torch

import pyops
from pyops.testing.cases.net import net_case
from pyops.testing.threads import on_threads


def order(x):
    return torch.channels_last if x.dim() == 4 else torch.contiguous_format


def assert_same(found, expected, label):
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{label}: {i}"
        assert a.is_contiguous(memory_format=order(a)), f"{label}: {i}"
        assert torch.equal(a, b), f"{label}: output {i}"


@pytest.mark.parametrize("name", pyops.isa.available())
def test_programs_equal_single_ops(name):
    with pyops.isa.force(name):
        for seed in range(40):
            case = net_case(seed, steps=10)
            assert_same(case.run(), case.expected, f"seed {seed}: {case.label}")


def test_all_steps_come_up():
    names = {name for seed in range(40) for name in net_case(seed, steps=10).names}
    assert names == {
        "quantize", "dequantize", "conv", "linear", "add", "concat", "pool", "adaptive pool",
        "clamp", "flatten",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_reference_and_fake(seed):
    case = net_case(seed, steps=8, size=6)
    found = case.plain("reference")
    assert_same(found, case.expected, case.label)
    for a, b in zip(case.plain("fake"), found, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.is_contiguous(memory_format=order(a))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(threads):
    with on_threads(threads):
        for seed in range(6):
            case = net_case(100 + seed, steps=10, size=40)
            assert_same(case.run(), case.expected, f"seed {seed}: {case.label}")

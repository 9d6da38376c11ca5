"""Pools on floats within run_net, at every level, against torch's."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import pyops
from pyops.ops import NetProgram, run_net

WINDOWS = [  # kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor
    ([3, 3], [2, 2], [1, 1], [1, 1], False, True, 0),
    ([2, 3], [2, 1], [0, 1], [1, 1], True, False, 0),
    ([3, 2], [1, 2], [1, 1], [2, 3], False, True, 0),
    ([2, 2], [2, 2], [1, 0], [1, 1], False, True, 3),
]


def image(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)


def run_at(name, program, x):
    with pyops.isa.force(name):
        return run_net(program, [x], [])


def average(x, ys, xs, count):
    """Windows of one size, summed in float32, row by row."""
    total = torch.zeros(x.shape[0], x.shape[1], ys[0].numel(), xs[0].numel())
    for y in ys:
        for at in xs:
            total = total + x[:, :, y][..., at].float()
    return (total / count).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 5, 16, 64, 300])
@pytest.mark.parametrize("name", pyops.isa.available())
def test_greatest_of_windows_are_torchs(name, channels, dtype):
    torch.manual_seed(4)
    x = image(2, channels, 9, 8, dtype=dtype)
    x[0, 0, 3, 3] = x[1, -1, 0, 0] = float("nan")
    x[1, 0] = -float("inf")
    for kernel, stride, padding, dilation, ceil, *rest in WINDOWS:
        program = NetProgram(1)
        y = program.float_pool(0, 0, kernel, stride, padding, dilation, ceil, *rest)
        program.returns(y, program.float_adaptive_pool(0, 0, [3, 5]))
        expected = F.max_pool2d(x, kernel, stride, padding, dilation, ceil)
        found, adapted = run_at(name, program, x)
        assert found.dtype == dtype
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
        assert torch.equal(found.isnan(), expected.isnan())
        expected = F.adaptive_max_pool2d(x, [3, 5])
        assert torch.equal(adapted.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("name", pyops.isa.available())
def test_of_equal_zeros_the_first_is_taken(name):
    program = NetProgram(1)
    program.returns(program.float_pool(0, 0, [2, 2], [2, 2], [0, 0], [1, 1], False, True, 0))
    for zeros in itertools.product((0.0, -0.0), repeat=4):
        x = torch.tensor(zeros).view(1, 1, 2, 2).repeat(1, 70, 1, 1)
        (found,) = run_at(name, program, x.contiguous(memory_format=torch.channels_last))
        assert torch.equal(found.signbit(), x[:, :, :1, :1].signbit())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 17, 300])
@pytest.mark.parametrize("name", pyops.isa.available())
def test_averages_sum_in_float32(name, channels, dtype):
    torch.manual_seed(5)
    x = image(2, channels, 6, 8, dtype=dtype)
    program = NetProgram(1)
    plainly = ([1, 1], False, True, 0)
    program.returns(
        program.float_adaptive_pool(0, 1, [1, 1]),
        program.float_pool(0, 1, [2, 2], [2, 2], [0, 0], *plainly),
        program.float_pool(0, 1, [2, 2], [2, 2], [0, 0], [1, 1], False, True, 3),
    )
    whole, pairs, thirds = run_at(name, program, x)
    one = torch.tensor
    ys, xs = [one([i]) for i in range(6)], [one([i]) for i in range(8)]
    assert torch.equal(whole, average(x, ys, xs, 48))
    ys, xs = [torch.arange(i, 6, 2) for i in (0, 1)], [torch.arange(i, 8, 2) for i in (0, 1)]
    assert torch.equal(pairs, average(x, ys, xs, 4))
    assert torch.equal(thirds, average(x, ys, xs, 3))
    for kernel, stride, padding, dilation, *rest in WINDOWS:
        if dilation != [1, 1]:
            continue
        program = NetProgram(1)
        program.returns(program.float_pool(0, 1, kernel, stride, padding, dilation, *rest))
        (found,) = run_at(name, program, x)
        expected = F.avg_pool2d(x.float(), kernel, stride, padding, *rest[:2], rest[2] or None)
        torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-6)
        if dtype == torch.float32:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

"""run_net: programs of steps on floats, against conv_relu; pools are in test_net_pools.py."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

import pyops
from pyops import ops
from pyops.ops import CONV_ACTIVATIONS, NetProgram, run_net
from pyops.ops import net_reference as plain
from pyops.ops.conv_relu_packing import pack_plain
from pyops.testing.threads import on_threads

CHANNELS_LAST = torch.channels_last


def image(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", pyops.isa.available())
def test_convolutions_equal_single_ops(name, dtype):
    torch.manual_seed(3)
    with pyops.isa.force(name):
        for activation in CONV_ACTIVATIONS:
            if activation.startswith("gelu"):
                continue
            x = image(2, 12, 9, 7, dtype=dtype)
            program = NetProgram(1)
            tensors, value, y = [], x, 0
            for k, groups, residual in ((3, 1, False), (3, 12, True), (1, 3, True)):
                weight, bias = torch.randn(12, 12 // groups, k, k).to(dtype), torch.randn(12)
                fast = dtype == torch.float32 and (k, groups) == (3, 1)
                packed = ops.conv_relu_pack(weight, groups, "winograd" if fast else "direct")
                slope = torch.full((12,), 0.1) if activation == "leaky_relu" else None
                tensors += [packed, bias, *([] if slope is None else [slope])]
                how = {"activation": activation, "padding": [k // 2] * 4}
                if activation == "clamp":
                    how |= {"low": -0.5, "high": 6.0}
                shape = list(weight.shape)
                made = ops.conv_relu(
                    value, packed, shape, bias=bias, slope=slope,
                    residual=value if residual else None, **how,
                )  # fmt: skip
                y = program.float_conv(y, shape, residual=y if residual else None, **how)
                value = made
            program.returns(y)
            (found,) = run_net(program, [x], tensors)
            assert found.dtype == dtype
            assert found.is_contiguous(memory_format=CHANNELS_LAST)
            assert torch.equal(found, value), activation


def small(plainly=False):
    """A convolution with a residual, a pool, an adaptive pool."""
    torch.manual_seed(6)
    weight, x = torch.randn(8, 8, 3, 3), image(2, 8, 6, 5)
    program = NetProgram(1)
    y = program.float_conv(0, [8, 8, 3, 3], padding=[1] * 4, residual=0, activation="relu")
    y = program.float_pool(y, 0, [3, 3], [2, 2], [1, 1], [1, 1], False, True, 0)
    program.returns(y, program.float_adaptive_pool(y, 1, [1, 2]))
    packed = pack_plain(weight, 1) if plainly else ops.conv_relu_pack(weight)
    return [[x], [packed, torch.randn(8)], program.steps, program.numbers, program.outputs]


def test_reference_and_fake():
    found = torch.ops.pyops.run_net.default(*small())
    for function in (plain.run_net_reference, plain.run_net_fake):
        for a, b in zip(function(*small(plainly=True)), found, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            if function is plain.run_net_reference:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(threads):
    expected = torch.ops.pyops.run_net.default(*small())
    with on_threads(threads):
        for a, b in zip(torch.ops.pyops.run_net.default(*small()), expected, strict=True):
            assert torch.equal(a, b)


def chain(seed, images, size):
    """Convolutions and pools at random, some of whose results are outputs: the call, and these."""
    random = torch.Generator().manual_seed(seed)

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (), generator=random))]

    program, values, tensors = NetProgram(1), [image(images, 8, size, size)], []
    for _ in range(10):
        x = pick(*range(max(0, len(values) - 3), len(values)))
        if pick(False, False, True) and values[x].shape[2] > 3:
            program.float_pool(x, pick(0, 1), [3, 3], [2, 1], [1, 1], [1, 1], False, True, 0)
            kind, *how = program.steps[-12:-3]
            pool = F.avg_pool2d if kind else F.max_pool2d
            values.append(pool(values[x], how[:2], how[2:4], how[4:6]))
            continue
        oc = pick(8, 40)
        groups = 8 if oc == values[x].shape[1] == 8 and pick(False, True) else 1
        weight = torch.randn(oc, values[x].shape[1] // groups, 3, 3, generator=random) * 0.2
        shape = (*values[x].shape[:1], oc, *values[x].shape[2:])
        fits = [i for i, value in enumerate(values) if tuple(value.shape) == shape]
        residual = pick(None, *fits)
        packed = ops.conv_relu_pack(weight, groups)
        program.float_conv(
            x, list(weight.shape), padding=[1] * 4, residual=residual, activation="relu", bias=False
        )
        values.append(
            ops.conv_relu(
                values[x], packed, list(weight.shape), padding=1, activation="relu",
                residual=None if residual is None else values[residual],
            )
        )  # fmt: skip
        tensors.append(packed)
    outputs = {10, *(pick(*range(1, 11)) for _ in range(2))}
    program.returns(*outputs)
    return (program, values[:1], tensors), [values[at] for at in outputs]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("images", [2, 3, 8, 9])
def test_batches_run_by_images(images, threads):
    """Large ones: in passes of some images, which threads share or take by themselves."""
    with on_threads(threads):
        for seed in range(8):
            call, expected = chain(seed, images, 64 if seed % 2 else 20)
            for found, value in zip(run_net(*call), expected, strict=True):
                torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
                assert found.is_contiguous(memory_format=CHANNELS_LAST)


def test_no_images():
    call = small()
    call[0] = [image(0, 8, 6, 5)]
    assert [list(x.shape) for x in torch.ops.pyops.run_net.default(*call)] == [
        [0, 8, 3, 3],
        [0, 8, 1, 2],
    ]


CONV, POOL, ADAPTIVE = 2, 20, 35  # where the integers of each step begin
REFUSED = [
    (
        (0, 0, image(2, 8, 6, 5).double()),
        TypeError,
        "0: conv_relu: x must be torch.float32 or torch.bfloat16, but is torch.float64",
    ),
    (
        (0, 0, image(2, 8, 6, 5)[0]),
        ValueError,
        "0: conv_relu: x must be 4-D [N, C, H, W], but is 3-D",
    ),
    (
        (1, 1, torch.zeros(7)),
        ValueError,
        "0: conv_relu: bias must be [8], but is [7]",
    ),
    ((2, CONV, 1), ValueError, "0: it reads register 1, but there are 1"),
    ((2, CONV + 3, 4), ValueError, "0: run_net: flags code 4 is unknown"),
    (
        (2, CONV + 8, 0),
        ValueError,
        "0: conv_relu: stride must be in [1, 1048576], but 0 given",
    ),
    (
        (2, CONV + 8, 2),
        ValueError,
        "0: conv_relu: residual must be [2, 8, 3, 5] like the output, but is [2, 8, 6, 5]",
    ),
    ((2, POOL + 1, 2), ValueError, "1: float pool: kind code 2 is unknown"),
    (
        (2, POOL + 2, 0),
        ValueError,
        "1: float pool: kernel must be 2 integers of at least 1, but is [0, 3]",
    ),
    (
        (2, POOL + 6, 2),
        ValueError,
        "1: float pool: padding may be at most half the window, 1, but is 2",
    ),
    (
        (2, POOL + 8, 9),
        ValueError,
        "1: float pool: the window is larger than the padded image",
    ),
    (
        (2, POOL + 12, -1),
        ValueError,
        "1: float pool: divisor_override must be at least 0, but is -1",
    ),
    (
        (2, ADAPTIVE + 2, 0),
        ValueError,
        "2: float adaptive pool: output_size must be 2 integers of at least 1, but is [0, 2]",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED, ids=[r[2] for r in REFUSED])
def test_refusals(change, kind, message):
    part, at, value = change
    arguments, plainly = small(), small(plainly=True)
    arguments[part][at] = plainly[part][at] = value
    full = f"run_net: step {message}"
    for function in (plain.run_net_fake, plain.run_net_reference):
        with pytest.raises(kind, match=f"^{re.escape(full)}$"):
            function(*plainly)
    start = re.escape(full.split(", but is ")[0])
    with pytest.raises(RuntimeError, match=start):
        torch.ops.pyops.run_net.default(*arguments)
    inputs, tensors, *rest = arguments
    with pytest.raises(kind, match=f"^{re.escape(full)}$"):
        run_net(NetProgram(1, *rest), inputs, tensors)


def test_averages_take_no_dilation():
    program = NetProgram(1)
    program.returns(program.float_pool(0, 1, [2, 2], [1, 1], [0, 0], [1, 2], False, True, 0))
    message = "step 0: float pool: averages take no dilation, but it is [1, 2]"
    with pytest.raises(ValueError, match=re.escape(message)):
        run_net(program, [image(1, 4, 6, 6)], [])

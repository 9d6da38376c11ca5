"""Programs that are prepared once: the same as net, for any inputs that follow."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pyops
from pyops import backends, ops
from pyops.graph import net_run
from pyops.ops import NetProgram, PreparedNet
from pyops.testing.cases.net import net_case

CODES = (torch.uint8, 0.05, 7)


def prepared(case):
    return PreparedNet(case.program, case.tensors, case.program.numbers)


def same(found, expected):
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def conv_program():
    """A convolution of an image of floats, 3 to 4 channels, to codes."""
    program = NetProgram(1)
    x = program.quantize(0, (torch.uint8, 0.1, 3))
    at = (0.1, 3)
    program.returns(program.conv(x, at, [4, 3, 3, 3], padding=[1, 1, 1, 1], bias=False, out=CODES))
    weight = torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8)
    return program, [ops.int8_conv_pack(weight), torch.full((4,), 0.01)]


def test_prepared_nets_equal_net():
    """Random programs, each called twice."""
    seen = 0
    for seed in range(40):
        case = net_case(seed, steps=10)
        if not case.tensors:
            continue
        net = prepared(case)
        for _ in range(2):
            assert same(net(case.inputs), case.expected), f"seed {seed}: {case.label}"
        seen += 1
    assert seen > 20


def test_inputs_of_other_sizes_types_and_orders():
    program, tensors = conv_program()
    net = PreparedNet(program, tensors, program.numbers)
    for shape in ((1, 3, 5, 6), (2, 3, 5, 6), (1, 3, 9, 4), (1, 3, 5, 6), (0, 3, 5, 6)):
        for dtype in (torch.float32, torch.bfloat16):
            for order in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(shape).to(dtype).contiguous(memory_format=order)
                assert same(net([x]), ops.run_net(program, [x], tensors))


def test_tensors_may_move():
    """As to memory that processes share: the old one is freed."""
    program, tensors = conv_program()
    net, x = PreparedNet(program, tensors, program.numbers), torch.randn(1, 3, 5, 6)
    expected = net([x])
    for tensor in tensors:
        before = tensor.data_ptr()
        tensor.share_memory_()
        assert tensor.data_ptr() != before
        assert same(net([x]), expected)


def test_what_does_not_fit_is_refused_and_the_net_goes_on():
    program, tensors = conv_program()
    net, x = PreparedNet(program, tensors, program.numbers), torch.randn(1, 3, 5, 6)
    expected = net([x])
    for bad in ([torch.randn(1, 4, 5, 6)], [x, x], [], [x.int()]):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            net(bad)
        assert same(net([x]), expected)


def test_a_net_without_tensors_is_refused():
    program = NetProgram(1)
    program.returns(program.quantize(0, CODES))
    words = "^PreparedNet: tensors must hold at least 1 tensor, but is empty$"
    with pytest.raises(ValueError, match=words):
        PreparedNet(program, [], program.numbers)


def test_a_number_that_is_not_there():
    program, tensors = conv_program()
    net, x = PreparedNet(program, tensors, program.numbers), torch.randn(1, 3, 5, 6)
    number = net.number
    assert same(torch.ops.pyops.run_prepared_net([x], number), net([x]))
    del net
    gc.collect()
    words = f"run_prepared_net: net is {number}, which prepare_net has not returned, or which is"
    with pytest.raises((RuntimeError, ValueError), match=words):
        torch.ops.pyops.run_prepared_net([x], number)
    backends.forget_prepared_net(number)  # again: nothing happens


def test_fake_tensors():
    program, tensors = conv_program()
    net = PreparedNet(program, tensors, program.numbers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        (out,) = net([torch.empty(2, 3, 8, 9)])
    assert (out.dtype, out.shape) == (torch.uint8, (2, 4, 8, 9))


def test_threads_share_a_net():
    program, tensors = conv_program()
    net = PreparedNet(program, tensors, program.numbers)
    xs = [torch.randn(1 + i % 2, 3, 17 + i % 3, 19) for i in range(24)]
    expected = [ops.run_net(program, [x], tensors) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: net([x]), xs))
    assert all(map(same, found, expected))


@pytest.mark.parametrize("inference", [False, True])
def test_a_quantized_net_is_prepared_once(monkeypatch, inference):
    """Also one that was quantized under inference mode."""
    made = []

    class Counted(PreparedNet):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(net_run, "PreparedNet", Counted)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, x):
            return F.relu(self.b(F.relu(self.a(x))))

    with torch.inference_mode(inference), torch.no_grad():
        net = pyops.quantize(Net().eval(), calibration=[torch.randn(2, 3, 12, 12)] * 2)
        made.clear()
        for size in (12, 12, 13, 12):
            net(torch.randn(1, 3, size, size))
    assert len(made) == 1

"""What run_net refuses, in whose words, before anything runs."""

from __future__ import annotations

import pytest
import torch

import pyops
from pyops import ops
from pyops.ops import NetProgram, run_net
from pyops.ops import net_reference as plain
from pyops.ops.int8_conv_packing import pack_conv_plain
from pyops.ops.packing import pack_plain

CODES = (torch.uint8, 0.05, 3)
CONV_AT, LINEAR_AT = 5, 39  # where the steps of `call` begin


def call(plainly: bool = False):
    """quantize, conv, pool, flatten, linear: inputs, tensors, steps, numbers, outputs."""
    torch.manual_seed(0)
    program = NetProgram(1)
    x = program.quantize(0, CODES)
    y = program.conv(x, CODES[1:], [8, 4, 3, 3], padding=[1, 1, 1, 1], out=CODES)
    y = program.adaptive_pool(y, CODES[1:], 1, [1, 1], CODES)
    y = program.linear(program.flatten(y), CODES[1:], 5)
    program.returns(y)
    weight = torch.randint(-127, 128, (8, 4, 3, 3), dtype=torch.int8)
    rows = torch.randint(-127, 128, (5, 8), dtype=torch.int8)
    packed = (pack_conv_plain(weight, 1), pack_plain(rows)) if plainly else None
    conv, linear = packed or (ops.int8_conv_pack(weight), ops.int8_pack(rows))
    tensors = [conv, torch.full((8,), 0.01), torch.zeros(8)]
    tensors += [linear, torch.full((5,), 0.01), torch.zeros(5)]
    inputs = [torch.randn(2, 4, 6, 6)]
    return [inputs, tensors, program.steps, program.numbers, program.outputs]


def setting(part: int, at: int, value):
    def change(arguments):
        arguments[part][at] = value

    return change


def dropping(part: int):
    return lambda arguments: arguments[part].pop()


def ending_steps(*extra: int):
    return lambda arguments: arguments[2].extend(extra)


STEP = "run_net: step"
REFUSED = [
    (dropping(0), ValueError, "run_net: inputs must hold at least 1 tensor, but is empty"),
    (setting(0, 0, torch.zeros(2, 3, 6, 6)), ValueError, None),
    (
        setting(0, 0, torch.zeros(2, 4, 6, 6, dtype=torch.int32)),
        TypeError,
        f"{STEP} 0: int8_quantize: x must be torch.float32, torch.bfloat16 or torch.float16, "
        "but is torch.int32",
    ),
    (
        setting(2, CONV_AT + 2, 7),
        ValueError,
        f"{STEP} 1: it reads register 7, but there are 2",
    ),
    (setting(2, CONV_AT + 3, -2), ValueError, f"{STEP} 1: it reads register -2, but there are 2"),
    (setting(2, CONV_AT + 3, 2), ValueError, f"{STEP} 1: it reads register 2, but there are 2"),
    (
        setting(2, CONV_AT + 3, 1),
        ValueError,
        f"{STEP} 1: int8_conv_relu: residual must be [2, 8, 6, 6] like the output, "
        "but is [2, 4, 6, 6]",
    ),
    (setting(2, CONV_AT, 14), ValueError, f"{STEP} 1: kind code 14 is unknown"),
    (setting(2, CONV_AT, 0), ValueError, f"{STEP} 1: quantize takes 3 integers, but has 20"),
    (
        setting(2, CONV_AT + 1, 200),
        ValueError,
        f"{STEP} 1: it counts 200 integers, but there are 41",
    ),
    (setting(2, CONV_AT + 5, 4), ValueError, f"{STEP} 1: run_net: flags code 4 is unknown"),
    (
        setting(2, CONV_AT + 14, 0),
        ValueError,
        f"{STEP} 1: int8_conv_relu: stride must be in [1, 1048576], but 0 given",
    ),
    (
        setting(3, 5, -1.0),
        ValueError,
        f"{STEP} 1: int8_conv_relu: out_scale must be positive and finite, but is -1.0",
    ),
    (
        setting(1, 2, torch.zeros(7)),
        ValueError,
        f"{STEP} 1: int8_conv_relu: bias must be [8], but is [7]",
    ),
    (
        setting(2, LINEAR_AT + 2, 3),
        ValueError,
        f"{STEP} 4: int8_gemm: a must not be an image [N, C, H, W]; flatten it",
    ),
    (ending_steps(9), ValueError, f"{STEP} 5: it has no kind and count"),
    (
        ending_steps(8, 3, 4, 200, 300),
        ValueError,
        f"{STEP} 5: clamp: low and high must be in [0, 255], but are 200 and 300",
    ),
    (
        dropping(1),
        ValueError,
        f"{STEP} 4: the steps take more than the 5 tensors that are given",
    ),
    (
        lambda arguments: arguments[1].append(torch.zeros(1)),
        ValueError,
        "run_net: the steps take 6 tensors, but 7 are given",
    ),
    (
        lambda arguments: arguments[3].append(1.0),
        ValueError,
        "run_net: the steps take 10 numbers, but 11 are given",
    ),
    (dropping(3), ValueError, f"{STEP} 4: the steps take more than the 9 numbers that are given"),
    (dropping(4), ValueError, "run_net: outputs must name at least 1 register, but is empty"),
    *[
        (
            lambda arguments, at=at: arguments[4].append(at),
            ValueError,
            f"run_net: output register {at} must be one that a step makes, named once",
        )
        for at in (0, 5, 6, -1)
    ],
]


def public(arguments):
    inputs, tensors, steps, numbers, outputs = arguments
    return run_net(NetProgram(len(inputs), steps, numbers, outputs), inputs, tensors)


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refusals(case):
    change, kind, message = REFUSED[case]
    arguments = call()
    change(arguments)
    with pytest.raises(RuntimeError if message is None else kind) as refused:
        public(arguments)
    with pytest.raises(RuntimeError) as by_kernel:
        torch.ops.pyops.run_net.default(*arguments)
    if message is None:  # what the packed bytes hold
        message = f"{STEP} 1: int8_conv_relu: x has 3 channels, but the weight takes 4"
        assert str(refused.value).endswith(message)
        assert str(by_kernel.value).endswith(message)
        return
    assert str(refused.value) == message
    # The kernel says the same, without what was given where the reference adds it.
    assert message.split(", but is ")[0] in str(by_kernel.value)
    arguments = call(plainly=True)
    change(arguments)
    for function in (plain.run_net_fake, plain.run_net_reference):
        with pytest.raises(kind) as refused:
            function(*arguments)
        assert str(refused.value) == message


def test_the_call_itself_is_right():
    (found,), (expected,) = public(call()), plain.run_net_reference(*call(plainly=True))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("name", pyops.isa.available())
def test_damaged_weights(name, index):
    with pyops.isa.force(name):
        arguments = call()
        arguments[1][index] = arguments[1][index].clone()
        arguments[1][index][0] += 1
        pack = ("int8_conv_pack", None, None, "int8_pack")[index]
        with pytest.raises(RuntimeError, match=rf"packed weight: not made by {pack} \(no header\)"):
            public(arguments)
        arguments[1][index][0] -= 1
        arguments[1][index] = arguments[1][index][:-64]
        with pytest.raises(RuntimeError, match="packed weight: "):
            public(arguments)


def test_sizes_that_no_memory_holds():
    program = NetProgram(1)
    y = program.conv(0, (1.0, 0), [1, 1, 1, 1], padding=[1 << 20] * 4, bias=False, out=CODES)
    program.returns(y)
    x = torch.zeros(64, 1, 1, 1, dtype=torch.uint8)
    weight = [ops.int8_conv_pack(torch.ones(1, 1, 1, 1, dtype=torch.int8)), torch.ones(1)]
    with pytest.raises(RuntimeError, match="step 0: it makes more than 2\\^48 bytes"):
        torch.ops.pyops.run_net.default(
            [x], weight, program.steps, program.numbers, program.outputs
        )


def test_gradients_and_counts():
    inputs, tensors, steps, numbers, outputs = call()
    program = NetProgram(1, steps, numbers, outputs)
    with pytest.raises(ValueError, match="run_net is for inference: an argument requires grad"):
        run_net(program, [inputs[0].requires_grad_()], tensors)
    message = "run_net: the program takes 1 inputs, but 2 are given"
    with pytest.raises(ValueError, match=message):
        run_net(program, [inputs[0].detach()] * 2, tensors)
    with pytest.raises(ValueError, match=r"activation must be one of .* but is 'tanh'"):
        program.linear(0, (1.0, 0), 4, activation="tanh")
    with pytest.raises(TypeError, match=r"must be one of .*: torch\.float64"):
        program.dequantize(0, (1.0, 0), torch.float64)

"""Steps of a net in one call: convolutions, linear layers, sums, pools and what is between.

At small batches the layers of a convnet take as long to call as to compute, and at large ones each
output is memory that has to be mapped anew. ``run_net`` checks all steps, puts what is between
them into one piece of memory, where two values share a place if they are not needed at one time,
and runs one after another. The piece stays with the thread that called, as large as its largest
call needed it.

A ``NetProgram`` says what to do. Results are bit for bit those of one call after another, for any
number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import checks
from . import net_reference as plain
from .define import define
from .epilogue import ACTIVATION_CODE, CONV_ACTIVATION_CODE, OUT_DTYPE_CODE

define(
    "run_net(Tensor[] inputs, Tensor[] tensors, int[] steps, float[] numbers, int[] outputs) "
    "-> Tensor[]",
    plain,
)

# Scale and zero point of codes.
At = tuple[float, int]
# dtype, scale and zero point of what a step makes; (a float dtype, 1.0, 0) for floats.
Out = tuple[torch.dtype, float, int]


@dataclass
class NetProgram:
    """Steps on registers. Registers 0, 1, ... are the inputs; each step adds one.

    A block of ResNet, from an image of codes::

        program = NetProgram(inputs=1)
        at, out = (0.02, 114), (torch.uint8, 0.03, 0)
        y = program.conv(0, at, [64, 64, 3, 3], padding=[1, 1, 1, 1], activation="relu", out=out)
        y = program.conv(y, (0.03, 0), [64, 64, 3, 3], padding=[1, 1, 1, 1], activation="relu",
                         residual=0, residual_at=at, out=out)
        program.returns(y)

    Each method returns the number of its register. ``steps``, ``numbers`` and ``outputs`` are what
    the dispatcher op takes (``csrc/cpu/net/program.h``). Names and dtypes that are unknown
    raise ValueError or TypeError here, all else in the call.
    """

    inputs: int
    steps: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    _made: int = 0

    def quantize(self, x: int, out: Out) -> int:
        """``int8_quantize``: floats to codes."""
        dtype, scale, zero = out
        return self._add(0, [x, zero, _code(dtype)], [scale])

    def dequantize(self, q: int, at: At, dtype: torch.dtype = torch.float32) -> int:
        """``int8_dequantize``: codes to floats."""
        return self._add(1, [q, at[1], _code(dtype)], [at[0]])

    def conv(
        self,
        x: int,
        at: At,
        weight_shape: Sequence[int],
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        bias: bool = True,
        residual: int | None = None,
        residual_at: At = (1.0, 0),
        activation: str = "none",
        low: float = 0.0,
        high: float = 0.0,
        out: Out = (torch.float32, 1.0, 0),
    ) -> int:
        """``int8_conv_relu``; takes packed, scale_w, (bias), and the slope of "leaky_relu"."""
        act = _activation(activation, CONV_ACTIVATION_CODE)
        flags = int(bias) + 2 * (activation == "leaky_relu")
        dtype, out_scale, out_zero = out
        own = [x, -1 if residual is None else residual, act, flags, _code(dtype), out_zero]
        zeros = [at[1], residual_at[1]]
        window = [*weight_shape, *stride, *padding, *dilation]
        numbers = [at[0], residual_at[0], low, high, out_scale]
        return self._add(2, [*own, *zeros, *window], numbers)

    def linear(
        self,
        x: int,
        at: At,
        n: int,
        *,
        bias: bool = True,
        activation: str = "none",
        out: Out = (torch.float32, 1.0, 0),
    ) -> int:
        """``int8_gemm`` of codes ``[..., K]`` of one scale; takes packed, scale_w, (bias)."""
        act = _activation(activation, ACTIVATION_CODE)
        dtype, out_scale, out_zero = out
        ints = [x, n, at[1], act, int(bias), _code(dtype), out_zero]
        return self._add(3, ints, [at[0], out_scale])

    def add(
        self,
        a: int,
        at_a: At,
        b: int,
        at_b: At,
        *,
        activation: str = "none",
        low: float = 0.0,
        high: float = 0.0,
        out: Out = (torch.float32, 1.0, 0),
    ) -> int:
        """``int8_add``."""
        act = _activation(activation, CONV_ACTIVATION_CODE)
        dtype, out_scale, out_zero = out
        ints = [a, b, at_a[1], at_b[1], act, _code(dtype), out_zero]
        return self._add(4, ints, [at_a[0], at_b[0], low, high, out_scale])

    def concat(self, xs: Sequence[int], ats: Sequence[At], dim: int, out: Out) -> int:
        """``int8_concat``; ``ats``: the scale and zero point of each."""
        dtype, out_scale, out_zero = out
        parts = [n for x, at in zip(xs, ats, strict=True) for n in (x, at[1])]
        scales = [out_scale, *(at[0] for at in ats)]
        return self._add(5, [dim, _code(dtype), out_zero, *parts], scales)

    def pool(
        self,
        x: int,
        at: At,
        kind: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor: int,
        out: Out,
    ) -> int:
        """``int8_pool``; ``kind`` 0: max, 1: average. ``padding`` has 4 integers."""
        dtype, out_scale, out_zero = out
        window = [*kernel, *stride, *padding, *dilation]
        how = [int(ceil_mode), int(count_include_pad), divisor]
        ints = [x, kind, *window, *how, at[1], _code(dtype), out_zero]
        return self._add(6, ints, [at[0], out_scale])

    def adaptive_pool(self, x: int, at: At, kind: int, size: Sequence[int], out: Out) -> int:
        """``int8_adaptive_pool``; ``kind`` 0: max, 1: average."""
        dtype, out_scale, out_zero = out
        return self._add(7, [x, kind, *size, at[1], _code(dtype), out_zero], [at[0], out_scale])

    def clamp(self, x: int, low: int, high: int) -> int:
        """``torch.clamp`` of uint8 codes."""
        return self._add(8, [x, low, high], [])

    def flatten(self, x: int) -> int:
        """``[N, ...]`` to ``[N, rest]``; images in the order of ``[N, C, H, W]``."""
        return self._add(9, [x], [])

    def float_conv(
        self,
        x: int,
        weight_shape: Sequence[int],
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        bias: bool = True,
        residual: int | None = None,
        activation: str = "none",
        low: float = 0.0,
        high: float = 0.0,
    ) -> int:
        """``conv_relu``; takes packed, (bias), and the slope of "leaky_relu"."""
        act = _activation(activation, CONV_ACTIVATION_CODE)
        flags = int(bias) + 2 * (activation == "leaky_relu")
        own = [x, -1 if residual is None else residual, act, flags]
        return self._add(10, [*own, *weight_shape, *stride, *padding, *dilation], [low, high])

    def float_pool(
        self,
        x: int,
        kind: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        ceil_mode: bool,
        count_include_pad: bool,
        divisor: int,
    ) -> int:
        """torch's pools of float32 or bfloat16; ``kind`` as that of ``pool``."""
        window = [*kernel, *stride, *padding, *dilation]
        return self._add(
            11, [x, kind, *window, int(ceil_mode), int(count_include_pad), divisor], []
        )

    def float_adaptive_pool(self, x: int, kind: int, size: Sequence[int]) -> int:
        """torch's adaptive pools of float32 or bfloat16."""
        return self._add(12, [x, kind, *size], [])

    def float_linear(self, x: int, n: int, *, bias: bool = True, activation: str = "none") -> int:
        """``linear`` of floats ``[..., K]`` as ``conv_relu`` of pixels; takes packed, (bias)."""
        return self._add(13, [x, n, _activation(activation, ACTIVATION_CODE), int(bias)], [])

    def returns(self, *registers: int) -> None:
        """Says which registers the call returns: of those that steps make."""
        self.outputs.extend(registers)

    def _add(self, kind: int, ints: list[int], numbers: list[float]) -> int:
        self.steps += [kind, len(ints), *ints]
        self.numbers += numbers
        self._made += 1
        return self.inputs + self._made - 1


def _code(dtype: torch.dtype) -> int:
    if dtype not in OUT_DTYPE_CODE:
        raise TypeError(f"run_net: a step's dtype must be one of {list(OUT_DTYPE_CODE)}: {dtype}")
    return OUT_DTYPE_CODE[dtype]


def _activation(name: str, codes: dict[str, int]) -> int:
    if name not in codes:
        raise ValueError(f"run_net: activation must be one of {tuple(codes)}, but is {name!r}")
    return codes[name]


def run_net(
    program: NetProgram, inputs: Sequence[Tensor], tensors: Sequence[Tensor]
) -> list[Tensor]:
    """Run ``program``.

    Args:
        program: the steps.
        inputs: ``program.inputs`` tensors: floats that are quantized or added, codes (int8, uint8).
            Images ``[N, C, H, W]`` best in ``torch.channels_last`` order.
        tensors: what the steps take, in their order.

    Returns:
        A tensor for each register that the program returns, images in ``torch.channels_last``
        order.

    Raises:
        TypeError, ValueError: an argument or a step has another dtype, shape, length or value than
            stated; nothing has run then.
        RuntimeError: a weight is damaged, or packed for another kernel or shape.
    """
    if len(inputs) != program.inputs:
        raise ValueError(
            f"run_net: the program takes {program.inputs} inputs, but {len(inputs)} are given"
        )
    checks.no_grad("run_net", *inputs, *tensors)
    arguments = (inputs, tensors, program.steps, program.numbers, program.outputs)
    try:
        out: list[Tensor] = torch.ops.pyops.run_net.default(*arguments)
        return out
    except RuntimeError as error:
        refused = error
    plain.run_net_fake(*arguments)
    raise refused

"""Several layers of a transformer in one call: linear layers, norms, residual sums, gates.

What stands between two attentions takes each row by itself. So a block of rows can go through all
of it while it is in the cache, and nothing between the layers is written to memory (operator fusion
as in "Data movement is all you need", Ivanov et al. 2021, arXiv:2007.00072). Each row is quantized
once for all layers that read it: what a norm makes, as soon as it is made.

A ``RowProgram`` says what to do; ``int8_rows`` does it. Results are bit for bit those of one call
after another, for any number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import checks
from . import int8_gemm_rows_reference as plain
from .define import define
from .epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE

define(
    "int8_rows(Tensor[] inputs, Tensor[] tensors, int[] steps, float[] eps, int[] outputs, int "
    "out_dtype) -> Tensor[]",
    plain,
)


@dataclass
class RowProgram:
    """Steps on registers of rows. Registers 0, 1, ... are the inputs; each step adds one.

    The MLP of a post-norm transformer, from the attention's output 0 and the layer's input 1::

        program = RowProgram(inputs=2)
        middle = program.layer_norm(program.linear(0, residual=1), eps=1e-12)
        up = program.linear(middle, activation="gelu")
        program.returns(program.layer_norm(program.linear(up, residual=middle), eps=1e-12))

    Each method returns the number of its register. ``steps``, ``eps`` and ``outputs`` are what the
    dispatcher op takes (``csrc/cpu/int8_gemm/rows.h``).
    """

    inputs: int
    steps: list[int] = field(default_factory=list)
    eps: list[float] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def linear(
        self,
        x: int,
        *,
        residual: int | None = None,
        gate: int | None = None,
        activation: str = "none",
        bias: bool = True,
    ) -> int:
        """``activation(x @ w.T + bias + residual) * gate``; takes packed, scale_w, (bias).

        Raises:
            ValueError: ``activation`` is none of ``ACTIVATIONS``.
        """
        checks.activations("int8_rows", activation)
        operands = [-1 if at is None else at for at in (residual, gate)]
        return self._add([plain.LINEAR, x, *operands, ACTIVATION_CODE[activation], int(bias)], 0.0)

    def layer_norm(self, x: int, *, eps: float, weight: bool = True, bias: bool = True) -> int:
        """``F.layer_norm`` over the row; takes (weight), (bias)."""
        return self._add([plain.LAYER_NORM, x, -1, -1, 0, weight + 2 * bias], eps)

    def rms_norm(self, x: int, *, eps: float, weight: bool = True) -> int:
        """``F.rms_norm`` over the row; takes (weight)."""
        return self._add([plain.RMS_NORM, x, -1, -1, 0, int(weight)], eps)

    def returns(self, *registers: int) -> None:
        """Says which registers the call returns: of those that steps make."""
        self.outputs.extend(registers)

    def _add(self, step: list[int], eps: float) -> int:
        self.steps.extend(step)
        self.eps.append(eps)
        return self.inputs + len(self.eps) - 1


def int8_rows(
    program: RowProgram,
    inputs: Sequence[Tensor],
    tensors: Sequence[Tensor],
    *,
    out_dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Run ``program`` on rows.

    Registers are rows of ``out_dtype``, rounded as the output of an op of its own would be. Norms
    are computed in float32, in an order that no instruction set changes (``common/norm.h``).

    Args:
        program: the steps.
        inputs: float32, bfloat16 or float16 ``[..., K_i]``, ``program.inputs`` of them, all with
            the same leading dimensions.
        tensors: what the steps take, in their order: ``packed``, ``scale_w`` and ``bias`` of a
            linear layer as for ``int8_linear``; float32, bfloat16 or float16 ``[K]`` for a norm.
        out_dtype: float32, bfloat16 or float16; None means that of ``inputs[0]``.

    Returns:
        ``[..., N_i]`` for each register that the program returns.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape, length or value than stated.
        RuntimeError: a weight is packed for another kernel or shape.
    """
    if len(inputs) != program.inputs:
        raise ValueError(
            f"int8_rows: the program takes {program.inputs} inputs, but {len(inputs)} are given"
        )
    checks.no_grad("int8_rows", *inputs, *tensors)
    if out_dtype is not None:
        checks.floats("int8_rows", "out_dtype", out_dtype)
    elif inputs:
        out_dtype = inputs[0].dtype
    arguments = (inputs, tensors, program.steps, program.eps, program.outputs)
    code = 0 if out_dtype is None else OUT_DTYPE_CODE.get(out_dtype, -1)
    try:
        out: list[Tensor] = torch.ops.pyops.int8_rows.default(*arguments, code)
        return out
    except RuntimeError as error:
        refused = error
    plain.check(*arguments, code)
    raise refused

"""``run_net`` for a program that runs again and again: a call brings its inputs and a number.

To bring the steps of a large net to the op, and to check them, takes as long as some of its layers.
"""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends
from . import net_prepared_reference as plain
from .define import define
from .net import NetProgram

define("prepare_net(Tensor[] tensors, int[] steps, float[] numbers, int[] outputs) -> int", plain)
define("run_prepared_net(Tensor[] inputs, int net) -> Tensor[]", plain)


class PreparedNet:
    """A program and its tensors, which it holds: ``net(inputs)`` is ``run_net``.

    A call checks the whole program if its inputs are of other types or sizes than those of the call
    before, or if a tensor got other memory. Otherwise types, sizes and values of the tensors may
    not change, nor may the choice of kernels (``isa.epoch()``): prepare another net then.

    Args:
        program: the steps and outputs.
        tensors: what the steps take, in their order; at least one.
        numbers: in the place of the program's.

    Raises:
        ValueError: there is no tensor.
        RuntimeError: as ``run_net``, at a call.
    """

    def __init__(
        self, program: NetProgram, tensors: Sequence[Tensor], numbers: Sequence[float]
    ) -> None:
        if not tensors:
            raise ValueError("PreparedNet: tensors must hold at least 1 tensor, but is empty")
        self.arguments = (list(tensors), program.steps, list(numbers), program.outputs)
        self.number: int = torch.ops.pyops.prepare_net.default(*self.arguments)
        plain.prepared[self.number] = self
        weakref.finalize(self, backends.forget_prepared_net, self.number).atexit = False

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        out: list[Tensor] = torch.ops.pyops.run_prepared_net.default(inputs, self.number)
        return out

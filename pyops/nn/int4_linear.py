"""Int4Linear: y = x @ weight.T + bias with int4 weights and float activations."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import int4_linear
from .packed_int4 import PackedInt4
from .packed_linear import PackedLinear
from .registry import replaces


@replaces(nn.Linear, "transformers.pytorch_utils.Conv1D", weights="int4")
class Int4Linear(PackedLinear):
    """Linear with int4 weights for inference: x [..., K] fp32, bf16 or fp16 -> [..., N].

    Weights have a scale per group of 32, 64 or 128 values along K, symmetric or with zero points
    (``pyops.ops.quantize_weight_int4``); activations stay floats and sums are fp32
    (``pyops.ops.int4_linear``). The output has the input's dtype, or autocast's. ``state_dict``
    holds two codes to a byte, scales and where asymmetric zero points (``PackedInt4``). Raises
    RuntimeError in train mode and on an input that requires grad; TypeError or ValueError from the
    op on a wrong dtype or shape.
    """

    weights = "int4"
    weight_class = PackedInt4
    options = ("group_size", "symmetric")
    packed: PackedInt4

    def forward(
        self, input: Tensor, *, residual: Tensor | None = None, activation: str = "none"
    ) -> Tensor:
        """``activation(input @ weight.T + bias + residual)`` in one call; residual ``[..., N]``."""
        return int4_linear(
            input,
            self.packed.get(),
            self.packed.n,
            self._buffers["bias"],
            residual=residual,
            activation=activation,
            out_dtype=self.output_dtype(input),
        )

    def extra_repr(self) -> str:
        size, symmetric = self.packed.group_size, self.packed.symmetric
        return f"{super().extra_repr()}, group_size={size}, symmetric={symmetric}"

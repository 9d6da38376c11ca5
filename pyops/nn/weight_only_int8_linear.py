"""WeightOnlyInt8Linear: y = x @ weight.T + bias with int8 weights and float activations."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import int8_weight_linear
from .packed_linear import PackedLinear
from .packed_weight import WeightOnlyInt8Weight
from .registry import replaces


@replaces(nn.Linear, "transformers.pytorch_utils.Conv1D", weights="int8")
class WeightOnlyInt8Linear(PackedLinear):
    """Linear with int8 weights for inference: x [..., K] fp32, bf16 or fp16 -> [..., N].

    Weights are symmetric int8 per output channel, activations stay floats and sums are fp32
    (``pyops.ops.int8_weight_linear``). Else as ``Int8Linear``: the output has the input's dtype, or
    autocast's; ``state_dict`` holds int8 [N, K]; train mode and an input that requires grad raise
    RuntimeError, a wrong dtype or shape TypeError or ValueError.
    """

    weights = "weight-only int8"
    weight_class = WeightOnlyInt8Weight
    packed: WeightOnlyInt8Weight

    def forward(
        self, input: Tensor, *, residual: Tensor | None = None, activation: str = "none"
    ) -> Tensor:
        """``activation(input @ weight.T + bias + residual)`` in one call; residual ``[..., N]``."""
        return int8_weight_linear(
            input,
            self.packed.get(),
            self.packed.scale,
            self._buffers["bias"],
            residual=residual,
            activation=activation,
            out_dtype=self.output_dtype(input),
        )

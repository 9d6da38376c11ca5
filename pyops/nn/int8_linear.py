"""Int8Linear: y = x @ weight.T + bias with int8 weights and activations quantized per row."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import int8_linear
from ..ops.packing import MAX_K
from .packed_linear import PackedLinear
from .packed_weight import PackedWeight
from .registry import replaces


@replaces(nn.Linear, "transformers.pytorch_utils.Conv1D")
class Int8Linear(PackedLinear):
    """Dynamic int8 Linear for inference: x [..., K] fp32, bf16 or fp16 -> [..., N].

    Weights are symmetric int8 per output channel, activations symmetric int8 per row
    (``pyops.ops.int8_linear``). The output has the input's dtype, or autocast's where that is on.
    ``dtype`` and ``transposed`` ([K, N], as in Conv1D) describe what ``.weight`` returns;
    ``state_dict`` holds int8 [N, K]. Raises RuntimeError in train mode and on an input that
    requires grad; TypeError or ValueError from the op on a wrong dtype or shape.
    """

    weights = "int8"
    weight_class = PackedWeight
    max_in_features = MAX_K  # int32 sums could overflow
    packed: PackedWeight

    def forward(
        self, input: Tensor, *, residual: Tensor | None = None, activation: str = "none"
    ) -> Tensor:
        """``activation(input @ weight.T + bias + residual)`` in one call; residual ``[..., N]``.

        The argument is called as ``nn.Linear`` calls it.
        """
        dtype = self.output_dtype(input)
        packed, bias = self.packed, self._buffers["bias"]  # self.bias is a slow lookup
        return int8_linear(
            input,
            packed.get(),
            packed.scale,
            bias,
            residual=residual,
            activation=activation,
            out_dtype=dtype,
        )

"""Int8Linear: y = x @ weight.T + bias with int8 weights and activations quantized per row."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..ops import int8_linear, int8_linear_group, int8_mlp
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


def forward_group(
    layers: Sequence[Int8Linear], x: Tensor, activations: Sequence[str]
) -> list[Tensor]:
    """``[activation(layer(x)) ...]`` in one call that quantizes ``x`` once."""
    dtype = layers[0].output_dtype(x)
    biases = [layer._buffers["bias"] for layer in layers]
    if any((bias is None) != (biases[0] is None) for bias in biases):
        return [
            layer.forward(x, activation=activation)
            for layer, activation in zip(layers, activations, strict=True)
        ]
    return int8_linear_group(
        x,
        [layer.packed.get() for layer in layers],
        [layer.packed.scale for layer in layers],
        [bias for bias in biases if bias is not None],
        activation=activations,
        out_dtype=dtype,
    )


def forward_mlp(
    up: Int8Linear, down: Int8Linear, x: Tensor, residual: Tensor | None, activation: str
) -> Tensor:
    """``down(activation(up(x))) + residual`` in one call that keeps the hidden values in cache."""
    dtype = up.output_dtype(x)
    return int8_mlp(
        x,
        up.packed.get(),
        up.packed.scale,
        up._buffers["bias"],
        down.packed.get(),
        down.packed.scale,
        down._buffers["bias"],
        activation=activation,
        residual=residual,
        out_dtype=dtype,
    )

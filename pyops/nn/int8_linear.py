"""Int8Linear: y = x @ weight.T + bias with int8 weights and activations quantized per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..ops import int8_linear
from .packed_module import PackedModule
from .packed_weight import PackedWeight
from .registry import replaces

if TYPE_CHECKING:
    from typing_extensions import Self


@replaces(nn.Linear, "transformers.pytorch_utils.Conv1D")
class Int8Linear(PackedModule):
    """Dynamic int8 Linear for inference: x [..., K] fp32, bf16 or fp16 -> [..., N].

    Weights are symmetric int8 per output channel, activations symmetric int8 per row
    (``pyops.ops.int8_linear``). The output has the input's dtype, or autocast's where that is on.
    ``dtype`` and ``transposed`` ([K, N], as in Conv1D) describe what ``.weight`` returns;
    ``state_dict`` holds int8 [N, K]. Raises RuntimeError in train mode and on an input that
    requires grad; TypeError or ValueError from the op on a wrong dtype or shape.
    """

    @property
    def in_features(self) -> int:
        """K, the last dimension of the input."""
        return self.packed.k

    @property
    def out_features(self) -> int:
        """N, the last dimension of the output."""
        return self.packed.n

    @classmethod
    def from_float(cls, layer: nn.Module, packed: PackedWeight | None = None) -> Self:
        """Converts ``nn.Linear`` or Conv1D; ``packed`` is given where it was packed before."""
        transposed = not isinstance(layer, nn.Linear)
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        if packed is None:
            packed = PackedWeight.from_float(weight.t() if transposed else weight)
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        return cls(packed, bias, dtype=weight.dtype, transposed=transposed)

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

    def takes(self, x: Tensor, residual: Tensor) -> bool:
        """Whether ``forward`` can add this residual with the result that ``+`` would have.

        ``x``: what the layer reads, or a tensor with the same leading dimensions.
        """
        return (
            isinstance(residual, Tensor)
            and not (residual.requires_grad and torch.is_grad_enabled())
            and residual.dtype == self.output_dtype(x)
            and residual.shape[:-1] == x.shape[:-1]
            and residual.shape[-1:] == (self.out_features,)
        )

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"

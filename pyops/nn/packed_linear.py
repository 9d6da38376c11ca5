"""What the Linear layers with a packed weight share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .packed_base import PackedBase
from .packed_module import PackedModule

if TYPE_CHECKING:
    from typing_extensions import Self


class PackedLinear(PackedModule):
    """Base of the Linear layers: sizes, conversion, and what ``pyops.graph`` asks before fusing."""

    @property
    def in_features(self) -> int:
        """K, the last dimension of the input."""
        return self.packed.k

    @property
    def out_features(self) -> int:
        """N, the last dimension of the output."""
        return self.packed.n

    @classmethod
    def from_float(cls, layer: nn.Module, packed: PackedBase | None = None, **options: Any) -> Self:
        """Converts ``nn.Linear`` or Conv1D; ``packed`` is given where it was packed before.

        ``options``: those of the class (``options``), for its ``weight_class.from_float``.
        """
        transposed = not isinstance(layer, nn.Linear)
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        if packed is None:
            packed = cls.weight_class.from_float(weight.t() if transposed else weight, **options)
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        return cls(packed, bias, dtype=weight.dtype, transposed=transposed)

    def forward(
        self, input: Tensor, *, residual: Tensor | None = None, activation: str = "none"
    ) -> Tensor:
        """``activation(input @ weight.T + bias + residual)`` in one call; residual ``[..., N]``."""
        raise NotImplementedError

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

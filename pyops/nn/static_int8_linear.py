"""StaticInt8Linear: y = x @ weight.T + bias of codes with int8 weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..ops.epilogue import OUT_DTYPE_CODE
from .packed_base import PackedBase
from .packed_linear import PackedLinear
from .packed_weight import PackedWeight
from .registry import replaces
from .static_module import StaticModule

if TYPE_CHECKING:
    from typing_extensions import Self


@replaces(nn.Linear, weights="static")
class StaticInt8Linear(StaticModule, PackedLinear):
    """Static int8 Linear for inference: x [..., K] -> [..., N].

    As ``Int8Linear``, but its input has one scale and zero point, found by calibration
    (``pyops.ops.int8_gemm``).
    """

    weights = "static int8"
    weight_class = PackedWeight
    packed: PackedWeight

    def __init__(self, packed: PackedBase, bias: Tensor | None = None, **rest: Any) -> None:
        super().__init__(packed, bias, **rest)
        self._at = self._tensors()

    def _tensors(self) -> tuple[Tensor, Tensor]:
        """The input's scale and zero point as ``int8_gemm`` takes them."""
        with torch.inference_mode(False):
            scale = torch.tensor([self.input_scale], device=self.packed.device)
            zero = torch.tensor([self.input_zero_point], device=self.packed.device)
        return scale, zero.to(torch.int32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._at = self._tensors()
        return self

    @classmethod
    def from_float(cls, layer: nn.Module, packed: PackedBase | None = None, **options: Any) -> Self:
        """Converts a float layer; ``options``: its input's scale and zero point."""
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        bias: Any = layer.bias
        packed = PackedWeight.from_float(weight) if packed is None else packed
        return cls(packed, bias, dtype=weight.dtype, **options)

    def of_codes(
        self, x: Tensor, activation: int, out_dtype: int, out_scale: float, out_zero_point: int
    ) -> Tensor:
        """``activation(x @ weight.T + bias)`` of codes ``[..., K]``."""
        packed = self.packed
        rows = x.reshape(-1, x.shape[-1])
        y: Tensor = torch.ops.pyops.int8_gemm.default(
            rows,
            packed.get(),
            packed.n,
            *(*self._at, packed.scale, self._buffers["bias"], None),
            *(activation, out_dtype, out_scale, out_zero_point),
        )
        return y.reshape(*x.shape[:-1], packed.n)

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """The layer by itself: floats in, floats out, the input quantized on the way."""
        out = OUT_DTYPE_CODE[self.output_dtype(input)]
        return self.of_codes(self.codes_of(input), 0, out, 1.0, 0)

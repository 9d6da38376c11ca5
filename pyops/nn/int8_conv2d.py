"""Int8Conv2d and Int8Conv1d: convolutions of codes with int8 weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..ops.epilogue import OUT_DTYPE_CODE
from .packed_base import Config, PackedBase
from .packed_conv import PackedConv
from .registry import replaces
from .static_module import StaticModule

if TYPE_CHECKING:
    from typing_extensions import Self


@replaces(nn.Conv2d, weights="static")
class Int8Conv2d(StaticModule):
    """Static int8 convolution for inference: x [N, C, H, W] -> [N, OC, OH, OW].

    Weights are symmetric int8 per output channel, activations uint8 with one scale and zero point
    (``pyops.ops.int8_conv_relu``). ``state_dict`` holds int8 [OC, C / groups, KH, KW]. Raises
    RuntimeError in train mode and on an input that requires grad.
    """

    weights = "static int8"
    weight_class = PackedConv
    packed: PackedConv
    rank = 2

    def __init__(
        self, packed: PackedBase, bias: Tensor | None = None, *, like: Any, **rest: Any
    ) -> None:
        """``like``: the ``nn.Conv2d`` whose stride, padding and dilation it has."""
        super().__init__(packed, bias, **rest)
        flat = self.rank == 1
        self.groups = int(like.groups)
        self.kernel_size, self.stride, self.dilation = (
            [1] * flat + list(value) for value in (like.kernel_size, like.stride, like.dilation)
        )
        self.padding = [0, 0] * flat + padding_of(like)

    @classmethod
    def from_float(cls, layer: nn.Module, packed: PackedBase | None = None, **options: Any) -> Self:
        """Converts a float layer; ``options``: its input's scale and zero point."""
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        if packed is None:
            groups: Any = layer.groups
            image = weight.unsqueeze(2) if cls.rank == 1 else weight
            packed = PackedConv.from_float(image, groups=groups)
        bias: Any = layer.bias
        return cls(packed, bias, like=layer, dtype=weight.dtype, **options)

    @classmethod
    def rebuild(
        cls, like: nn.Module, packed: PackedBase, bias: Tensor | None, **options: Any
    ) -> Self:
        """See ``PackedModule``."""
        options.pop("transposed", None)
        return cls(packed, bias, like=like, **options)

    @classmethod
    def part_shapes(
        cls, shape: Sequence[int], transposed: bool, config: Config
    ) -> dict[str, list[int]]:
        """See ``PackedModule``; the weight is stored with 4 dimensions."""
        cls.weight_class.shapes(0, 0, config)
        image = [*shape[:2], *[1] * (4 - len(shape)), *shape[2:]]
        return {"weight": image, "weight_scale": [shape[0]]}

    @property
    def weight(self) -> Tensor:
        """A dequantized copy in the float layer's dtype, for code that only reads it."""
        weight = self.packed.dequantize(self.dtype)
        return weight.squeeze(2) if self.rank == 1 else weight

    def forward(self, input: Tensor) -> Tensor:
        """The layer by itself: floats in, floats out, the input quantized on the way."""
        codes = self.codes_of(input)
        codes = codes.unsqueeze(2) if self.rank == 1 else codes
        y: Tensor = torch.ops.pyops.int8_conv_relu.default(
            codes,
            self.packed.get(),
            *(self.packed.shape, self.stride, self.padding, self.dilation),
            *(self.input_scale, self.input_zero_point, self.packed.scale, self._buffers["bias"]),
            *(None, 1.0, 0, 0, 0.0, 0.0, None),
            *(OUT_DTYPE_CODE[self.output_dtype(input)], 1.0, 0),
        )
        return y.squeeze(2) if self.rank == 1 else y

    def extra_repr(self) -> str:
        shape = self.packed.shape
        bias = self.bias is not None
        text = f"{shape[1] * self.groups}, {shape[0]}, kernel_size={self.kernel_size}"
        return f"{text}, stride={self.stride}, groups={self.groups}, bias={bias}"


@replaces(nn.Conv1d, weights="static")
class Int8Conv1d(Int8Conv2d):
    """The same on x [N, C, L], as an image of height 1."""

    rank = 1


def padding_of(layer: Any) -> list[int]:
    """Before and after each dimension: [top, bottom, left, right], or [left, right]."""
    if layer.padding == "valid":
        return [0, 0] * len(layer.kernel_size)
    if layer.padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for t in total for side in (t // 2, t - t // 2)]
    return [side for p in layer.padding for side in (p, p)]

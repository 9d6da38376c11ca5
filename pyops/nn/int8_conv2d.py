"""Int8Conv2d and Int8Conv1d: convolutions of codes with int8 weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..ops.epilogue import OUT_DTYPE_CODE
from .conv_module import ConvModule
from .packed_base import Config, PackedBase
from .packed_conv import PackedConv
from .registry import replaces
from .static_module import StaticModule

if TYPE_CHECKING:
    from typing_extensions import Self


@replaces(nn.Conv2d, weights="static")
class Int8Conv2d(ConvModule, StaticModule):
    """Static int8 convolution for inference: x [N, C, H, W] -> [N, OC, OH, OW], or one image
    [C, H, W].

    Weights are symmetric int8 per output channel, activations uint8 with one scale and zero point
    (``pyops.ops.int8_conv_relu``). ``state_dict`` holds int8 [OC, C / groups, KH, KW]. Raises
    RuntimeError in train mode and on an input that requires grad, ValueError on one of
    another shape.
    """

    weights = "static int8"
    weight_class = PackedConv
    packed: PackedConv

    @classmethod
    def from_float(cls, layer: nn.Module, packed: PackedBase | None = None, **options: Any) -> Self:
        """Converts a float layer; ``options``: its input's scale and zero point."""
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        if packed is None:
            groups: Any = layer.groups
            image = cls.image_of(weight)
            packed = PackedConv.from_float(image, groups=groups)
        bias: Any = layer.bias
        return cls(packed, bias, like=layer, dtype=weight.dtype, **options)

    @classmethod
    def part_shapes(
        cls, shape: Sequence[int], transposed: bool, config: Config
    ) -> dict[str, list[int]]:
        """See ``PackedModule``; the weight is stored with 4 dimensions."""
        cls.weight_class.shapes(0, 0, config)
        image = [*shape[:2], *[1] * (4 - len(shape)), *shape[2:]]
        return {"weight": image, "weight_scale": [shape[0]]}

    def forward(self, input: Tensor) -> Tensor:
        """The layer by itself: floats in, floats out, the input quantized on the way."""
        self.check_shape(input)
        codes = self.image_of(self.codes_of(input))
        y: Tensor = torch.ops.pyops.int8_conv_relu.default(
            codes,
            self.packed.get(),
            *(self.packed.shape, self.stride, self.padding, self.dilation),
            *(self.input_scale, self.input_zero_point, self.packed.scale, self._buffers["bias"]),
            *(None, 1.0, 0, 0, 0.0, 0.0, None),
            *(OUT_DTYPE_CODE[self.output_dtype(input)], 1.0, 0),
        )
        return self.as_given(y, input)


@replaces(nn.Conv1d, weights="static")
class Int8Conv1d(Int8Conv2d):
    """The same on x [N, C, L], as an image of height 1."""

    rank = 1

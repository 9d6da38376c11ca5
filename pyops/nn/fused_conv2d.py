"""FusedConv2d, FusedConv1d and FusedLinear: float layers that take a residual and an activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..ops.conv_relu import faster_algorithm
from ..ops.conv_relu_checks import winograd_geometry
from .conv_module import ConvModule
from .packed_base import Config, PackedBase
from .packed_float_conv import PackedFloatConv, PackedFloatLinear
from .registry import FUSED, replaces

if TYPE_CHECKING:
    from typing_extensions import Self

NO_ACTIVATION = (0, 0.0, 0.0)


def algorithm_for(layer: Any, dtype: torch.dtype | None = None) -> str:
    """The faster algorithm for a float layer whose weight becomes ``dtype`` (by default its own);
    see ``pyops.ops.conv_relu.faster_algorithm``.
    """
    weight: Tensor = layer.weight.detach()
    if not isinstance(layer, nn.Conv2d):
        return "direct"
    return faster_algorithm(
        weight.shape, dtype or weight.dtype, layer.stride, layer.dilation, layer.groups
    )


@replaces(nn.Conv2d, weights=FUSED)
class FusedConv2d(ConvModule):
    """Float convolution for inference: x [N, C, H, W] -> [N, OC, OH, OW], channels_last; or one
    image [C, H, W].

    The weight is float32 or bfloat16 and x of the same dtype; sums and bias are float32
    (``pyops.ops.conv_relu``). ``state_dict`` holds the weight as [OC, C / groups, KH, KW]. Casts
    to float32 or bfloat16 cast the weight. Raises RuntimeError in train mode and on an input that
    requires grad, TypeError on an input of another dtype, ValueError on one of another shape.
    Under autocast, x is cast to the weight's dtype and the result to autocast's.
    """

    weights = "fused float"
    workflow = "fuse"
    weight_class: ClassVar[type[PackedFloatConv]] = PackedFloatConv
    packed: PackedFloatConv

    def __init__(
        self, packed: PackedBase, bias: Tensor | None = None, *, like: Any, **rest: Any
    ) -> None:
        """``like``: the float layer whose stride, padding and dilation it has.

        Raises:
            ValueError: ``packed`` is for Winograd's algorithm, which takes stride 1 and dilation 1.
        """
        super().__init__(packed, bias, like=like, **rest)
        if self.packed.algorithm == "winograd":
            winograd_geometry(type(self).__name__, self.stride, self.dilation)

    @classmethod
    def from_float(
        cls,
        layer: nn.Module,
        packed: PackedBase | None = None,
        dtype: torch.dtype | None = None,
        algorithm: str = "auto",
        **options: Any,
    ) -> Self:
        """Converts a float layer.

        Args:
            layer: of the class that this one replaces.
            packed: a weight to share.
            dtype: of the new weight, by default that of the layer's.
            algorithm: as in ``pyops.ops.conv_relu_pack``, or "auto" (``algorithm_for``).
        """
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        if packed is None:
            image = cls.image_of(weight)
            groups: Any = getattr(layer, "groups", 1)
            if algorithm == "auto":
                algorithm = algorithm_for(layer, dtype)
            packed = cls.weight_class(
                image if dtype is None else image.to(dtype), groups, algorithm
            )
        bias: Any = layer.bias
        return cls(packed, bias, like=layer, dtype=dtype or weight.dtype, **options)

    @classmethod
    def part_shapes(
        cls, shape: Sequence[int], transposed: bool, config: Config
    ) -> dict[str, list[int]]:
        """See ``PackedModule``; the weight is stored with 4 dimensions."""
        cls.weight_class.shapes(0, 0, config)
        return {"weight": [*shape[:2], *[1] * (4 - len(shape)), *shape[2:]]}

    def forward(self, input: Tensor) -> Tensor:
        """The layer by itself."""
        dtype, own = self.output_dtype(input), self.packed.dtype
        if input.dtype == dtype == own:
            return self.run(input)
        if not torch.is_autocast_enabled(input.device.type):
            raise TypeError(
                f"{type(self).__name__} has a weight of {own}, so its input must be of that dtype, "
                f"but is {input.dtype}"
            )
        return self.run(input.to(own)).to(dtype)

    def run(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        act: tuple[int, float, float] = NO_ACTIVATION,
        slope: Tensor | None = None,
    ) -> Tensor:
        """``act(conv(x) + residual)``; ``act``: code, low and high of ``pyops.ops.conv_relu``."""
        self.check_shape(x)
        y: Tensor = torch.ops.pyops.conv_relu.default(
            self.image_of(x),
            self.packed.get(),
            self.packed.shape,
            self.stride,
            self.padding,
            self.dilation,
            self._buffers["bias"],
            None if residual is None else self.image_of(residual),
            *act,
            slope,
        )
        return self.as_given(y, x)


@replaces(nn.Conv1d, weights=FUSED)
class FusedConv1d(FusedConv2d):
    """The same on x [N, C, L], as an image of height 1."""

    rank = 1


@replaces(nn.Linear, weights=FUSED)
class FusedLinear(FusedConv2d):
    """The same for an ``nn.Linear``, on x [..., K]: rows are images of one pixel."""

    weight_class = PackedFloatLinear
    rank = 0

    @classmethod
    def part_shapes(
        cls, shape: Sequence[int], transposed: bool, config: Config
    ) -> dict[str, list[int]]:
        """See ``PackedModule``."""
        cls.weight_class.shapes(0, 0, config)
        return {"weight": list(shape)}

    @property
    def in_features(self) -> int:
        """K, the last dimension of the input."""
        return self.packed.k

    @property
    def out_features(self) -> int:
        """N, the last dimension of the output."""
        return self.packed.n

    def check_shape(self, x: Tensor) -> None:
        """Raises ValueError where the last dimension of ``x`` is not K."""
        k = self.in_features
        if x.dim() == 0 or x.shape[-1] != k:
            raise ValueError(f"FusedLinear: x must be [..., {k}], but is {list(x.shape)}")

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"

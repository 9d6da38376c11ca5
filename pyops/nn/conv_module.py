"""What layers that replace convolutions share: the geometry, and lines and rows as images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .packed_base import PackedBase
from .packed_module import PackedModule

if TYPE_CHECKING:
    from typing_extensions import Self

    from .packed_conv import PackedConv
    from .packed_float_conv import PackedFloatConv


class ConvModule(PackedModule):
    """Base of the layers that replace an ``nn.Conv2d``. With ``rank`` 1 it is an ``nn.Conv1d``, on
    images of height 1; with 0 an ``nn.Linear``, on images of one pixel.
    """

    packed: PackedConv | PackedFloatConv
    rank = 2

    def __init__(
        self, packed: PackedBase, bias: Tensor | None = None, *, like: Any, **rest: Any
    ) -> None:
        """``like``: the ``nn.Conv2d`` whose stride, padding and dilation it has."""
        super().__init__(packed, bias, **rest)
        if self.rank == 0:
            self.groups, self.padding = 1, [0] * 4
            self.kernel_size, self.stride, self.dilation = [1, 1], [1, 1], [1, 1]
            return
        flat = self.rank == 1
        self.groups = int(like.groups)
        self.kernel_size, self.stride, self.dilation = (
            [1] * flat + list(value) for value in (like.kernel_size, like.stride, like.dilation)
        )
        self.padding = [0, 0] * flat + padding_of(like)

    @classmethod
    def rebuild(
        cls, like: nn.Module, packed: PackedBase, bias: Tensor | None, **options: Any
    ) -> Self:
        """See ``PackedModule``."""
        options.pop("transposed", None)
        return cls(packed, bias, like=like, **options)

    @classmethod
    def image_of(cls, x: Tensor) -> Tensor:
        """With 4 dimensions, as ops and packed weights have them."""
        if cls.rank == 0:
            return x.reshape(-1, x.shape[-1])[..., None, None]
        if x.dim() == cls.rank + 1:  # torch's layers take one image, too
            x = x.unsqueeze(0)
        return x.unsqueeze(2) if cls.rank == 1 else x

    @classmethod
    def as_given(cls, y: Tensor, x: Tensor) -> Tensor:
        """The image that was made of ``image_of(x)``, with the dimensions that ``x`` has."""
        if cls.rank == 0:
            return y.view(*x.shape[:-1], y.shape[1])
        y = y.squeeze(2) if cls.rank == 1 else y
        return y.squeeze(0) if x.dim() == cls.rank + 1 else y

    def check_shape(self, x: Tensor) -> None:
        """What the op would not say in terms of the layer.

        Raises:
            ValueError: another number of dimensions, or of channels, than the layer takes.
        """
        at, channels = -1 - self.rank, self.packed.shape[1] * self.groups
        if x.dim() not in (self.rank + 1, self.rank + 2) or x.shape[at] != channels:
            sizes = ", ".join([str(channels), "H", "W"] if self.rank == 2 else [str(channels), "L"])
            raise ValueError(
                f"{type(self).__name__}: x must be [N, {sizes}] or [{sizes}], but is "
                f"{list(x.shape)}"
            )

    @property
    def weight(self) -> Tensor:
        """A plain copy in the float layer's dtype, for code that only reads it."""
        weight = self.packed.dequantize(self.dtype)
        if self.rank == 0:
            return weight.flatten(1)
        return weight.squeeze(2) if self.rank == 1 else weight

    def extra_repr(self) -> str:
        shape = self.packed.shape
        bias = self.bias is not None
        text = f"{shape[1] * self.groups}, {shape[0]}, kernel_size={self.kernel_size}"
        return f"{text}, stride={self.stride}, groups={self.groups}, bias={bias}"


def padding_of(layer: Any) -> list[int]:
    """Before and after each dimension: [top, bottom, left, right], or [left, right]."""
    if layer.padding == "valid":
        return [0, 0] * len(layer.kernel_size)
    if layer.padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for t in total for side in (t // 2, t - t // 2)]
    return [side for p in layer.padding for side in (p, p)]

"""Int8 weights of convolutions, held once, in the layout that the active kernel wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import backends
from ..ops import quantize_weight
from . import packed_base
from .packed_base import Config
from .packed_weight import check_scale, check_values
from .sparse_codes import SparseCodes, sparse_config

if TYPE_CHECKING:
    from typing_extensions import Self


class PackedConv(SparseCodes):
    """Symmetric int8 weight [OC, C / groups, KH, KW] with one fp32 scale per output channel.

    Packed for ``pyops.ops.int8_conv_relu``; see ``PackedBase`` for what becomes of it in copies,
    pickles, casts and moves. ``n`` is OC and ``k`` the number of products in one sum.

    Args:
        weight: int8, values in [-127, 127].
        scale: fp32 [OC], finite and positive.
        groups: as in ``torch.nn.Conv2d``.
        sparse: pack it by ``pyops.ops.sparse_pack``.

    Raises:
        ValueError: on another dtype, another number of dimensions or a value out of range.
    """

    op = "int8_conv_relu"
    packs_for = "int8_gemm"  # multiplies all but depthwise convolutions, which have one layout
    beside = ("scale",)

    def __init__(
        self, weight: Tensor, scale: Tensor, groups: int = 1, sparse: bool = False
    ) -> None:
        self.groups = groups
        self.sparse = sparse
        self.assign(weight, scale)

    @classmethod
    def from_float(cls, weight: Tensor, **options: Any) -> Self:
        """Quantizes a float weight of 4 dimensions; ``groups`` as in ``torch.nn.Conv2d``."""
        with torch.inference_mode(False), torch.no_grad():
            values, scale = quantize_weight(weight.detach().reshape(weight.shape[0], -1))
        return cls(values.reshape(weight.shape), scale, **options)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Tensor], k: int, config: Config) -> Self:
        return cls(parts["weight"], parts["weight_scale"], **config)

    @classmethod
    def shapes(cls, n: int, k: int, config: Config) -> dict[str, list[int]]:
        """See ``PackedBase``; the weight's own shape is that of the float layer."""
        rest = sparse_config(config)
        if set(rest) != {"groups"} or type(rest["groups"]) is not int or rest["groups"] < 1:
            raise ValueError(f"{cls.__name__} takes groups and sparse, but {dict(config)} given")
        return {"weight": [n, k], "weight_scale": [n]}

    def own_shapes(self) -> dict[str, list[int]]:
        return {"weight": self.shape, "weight_scale": [self.n]}

    def config(self) -> dict[str, Any]:
        return {"groups": self.groups, **({"sparse": True} if self.sparse else {})}

    def parts(self) -> dict[str, Tensor]:
        return {"weight": self.unpack(), "weight_scale": self.scale.detach()}

    def unpack(self) -> Tensor:
        """The plain int8 weight, a new tensor."""
        if self.device.type == "meta":
            return torch.empty(self.shape, dtype=torch.int8, device="meta")
        if self.sparse:
            return self._unpack_sparse(self._data, self.shape)
        out: Tensor = torch.ops.pyops.int8_conv_unpack.default(self._data, self.shape)
        return out

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        scale = self.scale.reshape(-1, 1, 1, 1)
        return (self.unpack().to(torch.float32) * scale).to(dtype)

    def assign(self, weight: Tensor, scale: Tensor) -> None:
        """Replaces the weight; every layer that shares this object sees the new one."""
        name = type(self).__name__
        if weight.dtype != torch.int8 or weight.dim() != 4:
            raise ValueError(
                f"{name}: weight is {weight.dtype} {list(weight.shape)}, expected int8 "
                "[OC, C / groups, KH, KW]"
            )
        check_scale(name, scale, weight.shape[0])
        check_values(name, weight, scale)
        with packed_base.repack_lock:
            self.shape = list(weight.shape)
            self.n = weight.shape[0]
            self.k = weight[0].numel() if self.n else 0
            with torch.inference_mode(False), torch.no_grad():
                self.scale = scale.detach().clone()
            self._pack({"weight": weight.detach()})

    def assign_parts(self, parts: Mapping[str, Tensor]) -> None:
        self.assign(parts["weight"], parts["weight_scale"])

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        if self.sparse:
            return self._pack_sparse(parts)
        weight = parts["weight"].contiguous()
        out: Tensor = torch.ops.pyops.int8_conv_pack.default(weight, self.groups)
        return out

    def _layout_of(self, data: Tensor) -> str:
        return self._sparse_layout(data) if self.sparse else backends.layout(self.op)

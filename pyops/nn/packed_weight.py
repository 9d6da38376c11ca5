"""Int8 weights, held once, in the layout that the active kernel wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import (
    int8_pack,
    int8_unpack,
    int8_weight_pack,
    int8_weight_unpack,
    packing,
    quantize_weight,
    weight_only_packing,
)
from . import packed_base
from .packed_base import Config
from .sparse_codes import SparseCodes, sparse_config

if TYPE_CHECKING:
    from typing_extensions import Self

_QUANTIZE_CHUNK = 1 << 18  # elements: keeps the float temporaries of one step to a few MB


class PackedWeight(SparseCodes):
    """Symmetric int8 weight [N, K] with one fp32 scale per output channel, packed for the kernel.

    See ``PackedBase`` for what becomes of it in copies, pickles, casts and moves.

    Args:
        weight: int8 [N, K], values in [-127, 127].
        scale: fp32 [N], finite and positive.
        sparse: pack it by ``pyops.ops.sparse_pack``.

    Raises:
        ValueError: on another dtype, another number of dimensions or a value out of range.
    """

    op = "int8_gemm"
    beside = ("scale",)

    def __init__(self, weight: Tensor, scale: Tensor, sparse: bool = False) -> None:
        self.sparse = sparse
        self.assign(weight, scale)

    @classmethod
    def from_float(cls, weight: Tensor) -> Self:  # type: ignore[override]  # takes no option
        """Quantizes a float weight [N, K], a block of rows at a time (bounded temporaries)."""
        n, k = weight.shape
        with torch.inference_mode(False), torch.no_grad():
            values = torch.empty(n, k, dtype=torch.int8, device=weight.device)
            scale = torch.empty(n, dtype=torch.float32, device=weight.device)
            rows = max(1, _QUANTIZE_CHUNK // max(1, k))
            for i in range(0, n, rows):
                values[i : i + rows], scale[i : i + rows] = quantize_weight(weight[i : i + rows])
        return cls(values, scale)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Tensor], k: int, config: Config) -> Self:
        return cls(parts["weight"], parts["weight_scale"], **config)

    @classmethod
    def shapes(cls, n: int, k: int, config: Config) -> dict[str, list[int]]:
        if sparse_config(config):
            raise ValueError(f"{cls.__name__} takes sparse alone, but {dict(config)} given")
        return {"weight": [n, k], "weight_scale": [n]}

    def config(self) -> dict[str, Any]:
        return {"sparse": True} if self.sparse else {}

    def parts(self) -> dict[str, Tensor]:
        return {"weight": self.unpack(), "weight_scale": self.scale.detach()}

    def unpack(self) -> Tensor:
        """The plain int8 weight [N, K], a new tensor."""
        if self.device.type == "meta":
            return torch.empty(self.n, self.k, dtype=torch.int8, device="meta")
        return self._unpacked(self._data)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return (self.unpack().to(torch.float32) * self.scale[:, None]).to(dtype)

    def assign(self, weight: Tensor, scale: Tensor) -> None:
        """Replaces the weight; every layer that shares this object sees the new one."""
        _check(weight, scale)
        with packed_base.repack_lock:
            self.n, self.k = weight.shape
            # A copy: a row view would keep the tensor that it was cut from alive.
            with torch.inference_mode(False), torch.no_grad():
                self.scale = scale.detach().clone()
            self._pack({"weight": weight.detach()})

    def assign_parts(self, parts: Mapping[str, Tensor]) -> None:
        self.assign(parts["weight"], parts["weight_scale"])

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        if self.sparse:
            return self._pack_sparse(parts)
        return int8_pack(parts["weight"].contiguous())

    def _unpacked(self, data: Tensor) -> Tensor:
        if self.sparse:
            return self._unpack_sparse(data, [self.n, self.k])
        return int8_unpack(data, self.n, self.k)

    def _layout_of(self, data: Tensor) -> str:
        return self._sparse_layout(data) if self.sparse else packing.read_header(data).layout


class WeightOnlyInt8Weight(PackedWeight):
    """The same weight, packed for products with float activations."""

    op = "weight_only"

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__(weight, scale)

    @classmethod
    def shapes(cls, n: int, k: int, config: Config) -> dict[str, list[int]]:
        if config:
            raise ValueError(f"{cls.__name__} takes no config, but {dict(config)} given")
        return super().shapes(n, k, config)

    def hold_sparse(self) -> None:
        """There are no sparse kernels for float activations.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} cannot be packed sparse")

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        return int8_weight_pack(parts["weight"].contiguous())

    def _unpacked(self, data: Tensor) -> Tensor:
        return int8_weight_unpack(data, self.n, self.k)

    def _layout_of(self, data: Tensor) -> str:
        return weight_only_packing.read_header(data).layout


def _check(weight: Tensor, scale: Tensor) -> None:
    if weight.dtype != torch.int8 or weight.dim() != 2:
        raise ValueError(
            f"PackedWeight: weight is {weight.dtype} {list(weight.shape)}, expected int8 [N, K]"
        )
    check_scale("PackedWeight", scale, weight.shape[0])
    check_values("PackedWeight", weight, scale)


def check_scale(name: str, scale: Tensor, n: int) -> None:
    """One fp32 scale for each of n channels, or ValueError."""
    if scale.dtype != torch.float32 or list(scale.shape) != [n]:
        raise ValueError(
            f"{name}: scale is {scale.dtype} {list(scale.shape)}, expected float32 [{n}]"
        )


def check_values(name: str, weight: Tensor, scale: Tensor) -> None:
    """No -128, and scales that are finite and positive, or ValueError."""
    if weight.device != scale.device:
        raise ValueError(f"{name}: scale is on {scale.device}, but weight on {weight.device}")
    if weight.device.type == "meta" or weight.numel() == 0:
        return
    if int(weight.min()) < -127:
        raise ValueError(f"{name}: weight holds -128, expected values in [-127, 127]")
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError(f"{name}: scale holds a value that is not finite and positive")

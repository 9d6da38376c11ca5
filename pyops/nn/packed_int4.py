"""PackedInt4: one int4 weight with scales per group, held once, packed for the active kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import int4_pack, int4_unpack, quantize_weight_int4
from ..ops.weight_only_packing import GROUP_SIZES, from_nibbles, group_count, nibbles, read_header
from ..ops.weight_only_reference import dequantize_int4
from . import packed_base
from .packed_base import Config, PackedBase

if TYPE_CHECKING:
    from typing_extensions import Self

_QUANTIZE_CHUNK = 1 << 18  # elements: keeps the float temporaries of one step to a few MB


class PackedInt4(PackedBase):
    """int4 weight [N, K] with a scale, and maybe a zero point, per group along K.

    The packed bytes hold scales and zero points, too. In a ``state_dict`` and in files: ``weight``
    uint8 [N, ceil(K / 2)], two codes to a byte, the lower half first; ``weight_scale`` fp32
    [N, ceil(K / group_size)]; ``weight_zero`` uint8 like it, only where asymmetric.

    Args:
        codes, scale, zero, group_size: as for ``pyops.ops.int4_pack``.

    Raises:
        TypeError, ValueError: another dtype, shape or value.
    """

    op = "weight_only"

    def __init__(
        self, codes: Tensor, scale: Tensor, zero: Tensor | None = None, *, group_size: int = 128
    ) -> None:
        self.group_size = group_size
        self.symmetric = zero is None
        self.assign(codes, scale, zero)

    @classmethod
    def from_float(  # type: ignore[override]  # names its options
        cls, weight: Tensor, group_size: int = 128, symmetric: bool = True
    ) -> Self:
        """Quantizes a float weight [N, K], a block of rows at a time (bounded temporaries)."""
        n, k = weight.shape
        rows = max(1, _QUANTIZE_CHUNK // max(1, k))
        with torch.inference_mode(False), torch.no_grad():
            blocks = [
                quantize_weight_int4(weight[i : i + rows], group_size, symmetric)
                for i in range(0, max(1, n), rows)
            ]
            codes = torch.cat([codes for codes, _, _ in blocks])
            scale = torch.cat([scale for _, scale, _ in blocks])
            zeros = [zero for _, _, zero in blocks if zero is not None]
        return cls(codes, scale, torch.cat(zeros) if zeros else None, group_size=group_size)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Tensor], k: int, config: Config) -> Self:
        cls.shapes(1, k, config)
        new = cls.__new__(cls)
        new.group_size, new.symmetric, new.k = config["group_size"], config["symmetric"], k
        new.assign_parts(parts)
        return new

    @classmethod
    def shapes(cls, n: int, k: int, config: Config) -> dict[str, list[int]]:
        group_size, symmetric = config.get("group_size"), config.get("symmetric")
        known = type(group_size) is int and group_size in GROUP_SIZES
        if group_size is None or not known or type(symmetric) is not bool or len(config) != 2:
            raise ValueError(
                f"PackedInt4: config is {dict(config)}, expected group_size 32, 64 or 128 and "
                "symmetric true or false"
            )
        shape = [n, group_count(k, group_size)]
        found = {"weight": [n, (k + 1) // 2], "weight_scale": shape}
        return found if symmetric else {**found, "weight_zero": shape}

    def config(self) -> dict[str, Any]:
        return {"group_size": self.group_size, "symmetric": self.symmetric}

    def parts(self) -> dict[str, Tensor]:
        if self.device.type == "meta":
            types = {"weight_scale": torch.float32}
            return {
                name: torch.empty(shape, dtype=types.get(name, torch.uint8), device="meta")
                for name, shape in self.shapes(self.n, self.k, self.config()).items()
            }
        codes, scale, zero = self.unpack()
        found = {"weight": nibbles(codes), "weight_scale": scale}
        return found if zero is None else {**found, "weight_zero": zero}

    @property
    def scale(self) -> Tensor:
        """fp32 [N, groups], a new tensor."""
        return self.parts()["weight_scale"]

    def unpack(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes [N, K], scale and zero (None where symmetric), new tensors."""
        size, zeros = self.group_size, not self.symmetric
        return int4_unpack(self._data, self.n, self.k, group_size=size, zeros=zeros)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        if self.device.type == "meta":
            return torch.empty(self.n, self.k, dtype=dtype, device="meta")
        return dequantize_int4(*self.unpack(), self.group_size).to(dtype)

    def assign(self, codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> None:
        """Replaces the weight; every layer that shares this object sees the new one."""
        if (zero is None) != self.symmetric:
            raise ValueError(f"PackedInt4: symmetric is {self.symmetric}, zero contradicts it")
        _check_scale(scale)
        # "weight" as well: it tells _pack the device.
        parts = {"weight": codes.detach(), "codes": codes.detach(), "weight_scale": scale.detach()}
        if zero is not None:
            parts["weight_zero"] = zero.detach()
        with packed_base.repack_lock:
            before = self.__dict__.copy()
            self.n, self.k = codes.shape
            try:
                self._pack(parts)
            except (TypeError, ValueError, RuntimeError):
                self.__dict__ = before
                raise

    def assign_parts(self, parts: Mapping[str, Tensor]) -> None:
        weight, zero = parts["weight"], parts.get("weight_zero")
        expected = self.shapes(weight.shape[0], self.k, self.config())
        for name, shape in expected.items():
            part, dtype = parts.get(name), torch.uint8
            if name == "weight_scale":
                dtype = torch.float32
            if part is None or part.dtype != dtype or list(part.shape) != shape:
                given = None if part is None else f"{part.dtype} {list(part.shape)}"
                raise ValueError(f"PackedInt4: {name} is {given}, expected {dtype} {shape}")
        codes = from_nibbles(weight, self.k, self.symmetric)
        self.assign(codes, parts["weight_scale"], zero)

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        codes = parts.get("codes")
        if codes is None:
            codes = from_nibbles(parts["weight"], self.k, self.symmetric)
        scale, zero = parts["weight_scale"], parts.get("weight_zero")
        return int4_pack(codes, scale, zero, group_size=self.group_size)

    def _layout_of(self, data: Tensor) -> str:
        return read_header(data).layout


def _check_scale(scale: Tensor) -> None:
    if scale.device.type == "meta":
        return
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError("PackedInt4: scale holds a value that is not finite and positive")

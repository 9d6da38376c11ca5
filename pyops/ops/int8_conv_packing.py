"""The packed convolution weight, as far as Python knows it: a 64-byte header, then the weight.

Layout ``plain`` is the one of the pure-torch reference: the header is followed by the int8 weight
``[OC, C / groups, KH, KW]``. The others belong to the compiled kernels
(``csrc/cpu/int8_conv_relu/pack.h``).
"""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import HEADER_BYTES, MAX_K

MAGIC = b"pyopsC8\0"
VERSION = 1
LAYOUTS = ("plain", "groups", "depthwise")
_HEADER = struct.Struct("<8siiqqqqq8x")


@dataclass(frozen=True)
class ConvHeader:
    """``shape``: of the weight, [OC, C / groups, KH, KW]. ``layout``: one of ``LAYOUTS``."""

    layout: str
    shape: tuple[int, int, int, int]
    groups: int

    @property
    def depth(self) -> int:
        """Products in one sum: KH * KW * C / groups."""
        return self.shape[1] * self.shape[2] * self.shape[3]


def read_conv_header(packed: Tensor) -> ConvHeader:
    """The header of a packed weight.

    Raises:
        ValueError: not made by ``int8_conv_pack``, or by another version of it.
    """
    if packed.numel() < HEADER_BYTES:
        raise ValueError(f"packed weight: {packed.numel()} bytes, shorter than its header of 64")
    raw = bytes(packed[:HEADER_BYTES].tolist())
    magic, version, layout, oc, c, kh, kw, groups = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise ValueError("packed weight: not made by int8_conv_pack (no header)")
    if version != VERSION:
        raise ValueError(f"packed weight: version {version}, expected {VERSION}")
    sizes = oc >= 0 and c >= 0 and kh > 0 and kw > 0 and groups > 0 and kh * kw * c <= MAX_K
    if not (0 <= layout < len(LAYOUTS) and sizes and oc % groups == 0):
        raise ValueError("packed weight: its header is damaged")
    return ConvHeader(LAYOUTS[layout], (oc, c, kh, kw), groups)


def pack_conv_plain(weight: Tensor, groups: int) -> Tensor:
    """Layout ``plain`` of an int8 ``weight [OC, C / groups, KH, KW]``."""
    raw = _HEADER.pack(MAGIC, VERSION, 0, *weight.shape, groups)
    header = torch.tensor(list(raw), dtype=torch.uint8, device=weight.device)
    return torch.cat((header, weight.contiguous().view(torch.uint8).reshape(-1)))


def unpack_conv_plain(packed: Tensor) -> Tensor:
    """The int8 weight of a packed weight of layout ``plain``.

    Raises:
        ValueError: another layout, or a length that the header contradicts.
    """
    header = read_conv_header(packed)
    if header.layout != "plain":
        raise ValueError(f"packed weight: layout {header.layout}, but the reference takes plain")
    count = header.shape[0] * header.depth
    if packed.numel() != HEADER_BYTES + count:
        raise ValueError(
            f"packed weight: {packed.numel()} bytes, expected {HEADER_BYTES + count} "
            f"for {list(header.shape)}"
        )
    return packed[HEADER_BYTES:].view(torch.int8).reshape(header.shape).clone()

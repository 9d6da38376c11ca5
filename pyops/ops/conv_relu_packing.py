"""The packed convolution weight, as far as Python knows it: a 64-byte header, then the weight.

Layout ``plain`` (``nr == 0``), the weight as given, is the one of the pure-torch reference; all
others belong to the compiled kernels (``csrc/cpu/conv_relu/pack.h`` draws both).
"""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from .packing import SPARSE_MAGIC

HEADER_BYTES = 64
INT8 = 3  # of OUT_DTYPES
MAGIC = b"pyopsCF\0"
VERSION = 1
# By the code in the header.
WEIGHT_DTYPES = (torch.float32, torch.bfloat16)
ALGORITHMS = ("direct", "winograd", "sparse")
_HEADER = struct.Struct("<8s11i12x")


@dataclass(frozen=True)
class Header:
    """``shape``: ``[OC, C / groups, KH, KW]``."""

    nr: int
    kr: int
    dtype: torch.dtype
    shape: tuple[int, int, int, int]
    groups: int
    algorithm: int  # of ALGORITHMS
    panels: bool = False  # a sparse weight with outputs in lanes (csrc/cpu/sparse_gemm/blocks.h)

    @property
    def layout(self) -> str:
        return f"n{self.nr}k{self.kr}{' panels' * self.panels}" if self.nr else "plain"


def read_header(packed: Tensor) -> Header:
    """The header of a packed weight.

    Raises:
        ValueError: not made by ``conv_relu_pack``, or by another version.
    """
    if packed.numel() < HEADER_BYTES:
        raise ValueError(f"packed weight: {packed.numel()} bytes, shorter than its header of 64")
    raw = bytes(packed[:HEADER_BYTES].tolist())
    magic, version, nr, kr, dtype, _, oc, cg, kh, kw, groups, algorithm = _HEADER.unpack(raw)
    # A sparse weight has the same header (csrc/cpu/sparse_gemm/pack.h) but for its end.
    panels = magic == SPARSE_MAGIC and algorithm == 0  # the depth of its blocks of x
    if magic == SPARSE_MAGIC:
        algorithm = ALGORITHMS.index("sparse")
    elif magic != MAGIC:
        raise ValueError("packed weight: not made by conv_relu_pack (no header)")
    if version != VERSION:
        raise ValueError(f"packed weight: version {version}, expected {VERSION}")
    if magic == SPARSE_MAGIC and dtype == INT8:
        raise ValueError("packed weight: a sparse one of torch.int8, which float ops do not take")
    codes = 0 <= dtype < len(WEIGHT_DTYPES) and 0 <= algorithm < len(ALGORITHMS)
    if not codes or min(nr, kr) < 0 or min(oc, cg, kh, kw, groups) < 1:
        raise ValueError("packed weight: its header is damaged")
    return Header(nr, kr, WEIGHT_DTYPES[dtype], (oc, cg, kh, kw), groups, algorithm, panels)


def pack_plain(weight: Tensor, groups: int, algorithm: int = 0) -> Tensor:
    """Layout ``plain`` of ``weight [OC, C / groups, KH, KW]``."""
    dtype = WEIGHT_DTYPES.index(weight.dtype)
    raw = _HEADER.pack(MAGIC, VERSION, 0, 0, dtype, 0, *weight.shape, groups, algorithm)
    header = torch.tensor(list(raw), dtype=torch.uint8, device=weight.device)
    return torch.cat((header, weight.contiguous().reshape(-1).view(torch.uint8)))


def unpack_plain(packed: Tensor) -> tuple[Header, Tensor]:
    """Header and weight of layout ``plain``.

    Raises:
        ValueError: another layout, or a length that the header contradicts.
    """
    header = read_header(packed)
    if header.layout != "plain":
        raise ValueError(f"packed weight: layout {header.layout}, but the reference takes plain")
    oc, cg, kh, kw = header.shape
    expected = HEADER_BYTES + oc * cg * kh * kw * header.dtype.itemsize
    if packed.numel() != expected:
        raise ValueError(
            f"packed weight: {packed.numel()} bytes, expected {expected} for {list(header.shape)}"
        )
    return header, packed[HEADER_BYTES:].clone().view(header.dtype).reshape(header.shape)

"""The packed-weight format, as far as Python knows it: a 64-byte header, then the weight.

Layout ``plain`` (``nr == 0``) is the one of the pure-torch reference: the row-major int8 weight
follows the header. All others belong to the compiled kernels (``csrc/cpu/int8_gemm/pack.h``).
"""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

HEADER_BYTES = 64
MAGIC = b"pyopsI8\0"
SPARSE_MAGIC = b"pyopsSP\0"  # csrc/cpu/sparse_gemm/pack.h
VERSION = 2
MAX_K = 65536  # so that no int32 sum of u8 * s8 products can overflow
_HEADER = struct.Struct("<8siiiiqqq16x")


@dataclass(frozen=True)
class Header:
    """``n, k``: the weight's shape. ``nr, kr``: columns and depth of a panel; 0, 0 for plain.

    ``cut``: large weights are cut (``csrc/cpu/int8_gemm/cut.h``).
    """

    nr: int
    kr: int
    n: int
    k: int
    cut: bool = False

    @property
    def layout(self) -> str:
        return f"n{self.nr}k{self.kr}{'cut' * self.cut}" if self.nr else "plain"


def read_header(packed: Tensor) -> Header:
    """The header of a packed weight.

    Raises:
        ValueError: not made by ``int8_pack``, or by another version of it.
    """
    if packed.numel() < HEADER_BYTES:
        raise ValueError(f"packed weight: {packed.numel()} bytes, shorter than its header of 64")
    raw = bytes(packed[:HEADER_BYTES].tolist())
    magic, version, nr, kr, cut, n, k, excess = _HEADER.unpack(raw)
    if magic == SPARSE_MAGIC:
        raise ValueError("packed weight: a sparse one, which this op does not take")
    if magic != MAGIC:
        raise ValueError("packed weight: not made by int8_pack (no header)")
    sizes = 0 <= k <= MAX_K and n >= 0 and (nr == kr == 0 or (nr > 0 and kr > 0))
    if not (sizes and (cut == excess == 0 or (cut == 1 and nr > 0 and excess >= 0))):
        raise ValueError("packed weight: its header is damaged")
    if version != VERSION:
        raise ValueError(f"packed weight: version {version}, expected {VERSION}")
    return Header(nr, kr, n, k, cut == 1)


def pack_plain(weight: Tensor) -> Tensor:
    """Layout ``plain`` of an int8 ``weight [N, K]``."""
    n, k = weight.shape
    raw = _HEADER.pack(MAGIC, VERSION, 0, 0, 0, n, k, 0)
    header = torch.tensor(list(raw), dtype=torch.uint8, device=weight.device)
    return torch.cat((header, weight.contiguous().view(torch.uint8).reshape(-1)))


def unpack_plain(packed: Tensor) -> Tensor:
    """The int8 weight ``[N, K]`` of a packed weight of layout ``plain``.

    Raises:
        ValueError: another layout, or a length that the header contradicts.
    """
    header = read_header(packed)
    if header.layout != "plain":
        raise ValueError(f"packed weight: layout {header.layout}, but the reference takes plain")
    if packed.numel() != HEADER_BYTES + header.n * header.k:
        raise ValueError(
            f"packed weight: {packed.numel()} bytes, "
            f"expected {HEADER_BYTES + header.n * header.k} for {header.n} x {header.k}"
        )
    return packed[HEADER_BYTES:].view(torch.int8).reshape(header.n, header.k).clone()

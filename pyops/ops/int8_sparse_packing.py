"""The packed sparse int8 weight, as far as Python knows it: a 64-byte header, then the weight.

Layout ``plain`` (``nr == 0``), the weight as given with its zeros, is the one of the pure-torch
reference; all others belong to the compiled kernels (``csrc/cpu/sparse_gemm/pack.h``).
"""

import struct

import torch
from torch import Tensor

from .conv_relu_packing import INT8, VERSION
from .int8_conv_packing import ConvHeader
from .packing import HEADER_BYTES, SPARSE_MAGIC

_INT32_SUMS = 1
_HEADER = struct.Struct("<8s11i12x")


def is_sparse(packed: Tensor) -> bool:
    """Whether ``packed`` begins like a weight of ``sparse_pack``, of any dtype."""
    return packed.numel() >= HEADER_BYTES and bytes(packed[:8].tolist()) == SPARSE_MAGIC


def read_sparse_header(packed: Tensor) -> ConvHeader:
    """The header of a sparse int8 weight.

    Raises:
        ValueError: not made by ``sparse_pack`` of an int8 weight, or by another version.
    """
    if not is_sparse(packed):
        raise ValueError("packed weight: not made by sparse_pack (no header)")
    raw = bytes(packed[:HEADER_BYTES].tolist())
    _, version, nr, kr, dtype, products, oc, cg, kh, kw, groups, _ = _HEADER.unpack(raw)
    if version != VERSION:
        raise ValueError(f"packed weight: version {version}, expected {VERSION}")
    if dtype != INT8 or products != _INT32_SUMS:
        raise ValueError("the packed sparse weight must be torch.int8")
    if min(nr, kr) < 0 or min(oc, cg, kh, kw, groups) < 1:
        raise ValueError("packed weight: its header is damaged")
    return ConvHeader(f"n{nr}k{kr}" if nr else "plain", (oc, cg, kh, kw), groups)


def pack_sparse_plain(weight: Tensor, groups: int) -> Tensor:
    """Layout ``plain`` of an int8 ``weight [OC, C / groups, KH, KW]``."""
    numbers = (VERSION, 0, 0, INT8, _INT32_SUMS, *weight.shape, groups, 0)
    raw = _HEADER.pack(SPARSE_MAGIC, *numbers)
    header = torch.tensor(list(raw), dtype=torch.uint8, device=weight.device)
    return torch.cat((header, weight.contiguous().view(torch.uint8).reshape(-1)))


def unpack_sparse_plain(packed: Tensor) -> tuple[ConvHeader, Tensor]:
    """Header and weight ``[OC, C / groups, KH, KW]`` of layout ``plain``.

    Raises:
        ValueError: another layout, or a length that the header contradicts.
    """
    header = read_sparse_header(packed)
    if header.layout != "plain":
        raise ValueError(f"packed weight: layout {header.layout}, but the reference takes plain")
    count = header.shape[0] * header.depth
    if packed.numel() != HEADER_BYTES + count:
        raise ValueError(
            f"packed weight: {packed.numel()} bytes, expected {HEADER_BYTES + count} "
            f"for {list(header.shape)}"
        )
    return header, packed[HEADER_BYTES:].view(torch.int8).reshape(header.shape).clone()


def linear_weight(op: str, packed: Tensor) -> Tensor:
    """The weight ``[N, K]`` of layout ``plain``.

    Raises:
        ValueError: it is a convolution's.
    """
    header, weight = unpack_sparse_plain(packed)
    if header.shape[2:] != (1, 1) or header.groups != 1:
        raise ValueError(
            f"{op}: the packed sparse weight is {list(header.shape)} of {header.groups} groups, "
            "a convolution's; a product takes [N, K]"
        )
    return weight.flatten(1)

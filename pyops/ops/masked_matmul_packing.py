"""The packed mask, as far as Python knows it: a 64-byte header, then the places that are kept.

Layout ``plain`` (``sections == 0``) is the one of the pure-torch reference: the row-major mask
follows the header. The other belongs to the compiled kernels (``csrc/cpu/masked_matmul/pack.h``).
"""

import struct

import torch
from torch import Tensor

HEADER_BYTES = 64
MAGIC = b"pyopsMM\0"
VERSION = 1
_HEADER = struct.Struct("<8siiqqq24x")


def pack_plain(mask: Tensor) -> Tensor:
    """Layout ``plain`` of a bool ``mask [N, K]``."""
    raw = _HEADER.pack(MAGIC, VERSION, 0, *mask.shape, 0)
    header = torch.tensor(list(raw), dtype=torch.uint8, device=mask.device)
    return torch.cat((header, mask.contiguous().view(torch.uint8).reshape(-1)))


def unpack_plain(packed: Tensor) -> Tensor:
    """The bool mask ``[N, K]`` of a packed mask of layout ``plain``.

    Raises:
        ValueError: not made by ``masked_pack``, or by another version of it; another layout; or a
            length that the header contradicts.
    """
    if packed.numel() < HEADER_BYTES:
        raise ValueError(f"packed mask: {packed.numel()} bytes, shorter than its header of 64")
    magic, version, sections, n, k, _ = _HEADER.unpack(bytes(packed[:HEADER_BYTES].tolist()))
    if magic != MAGIC:
        raise ValueError("packed mask: not made by masked_pack (no header)")
    if version != VERSION:
        raise ValueError(f"packed mask: version {version}, expected {VERSION}")
    if sections != 0:
        raise ValueError("packed mask: layout of the kernels, but the reference takes plain")
    if min(n, k) < 0:
        raise ValueError("packed mask: its header is damaged")
    if packed.numel() != HEADER_BYTES + n * k:
        raise ValueError(
            f"packed mask: {packed.numel()} bytes, expected {HEADER_BYTES + n * k} for {n} x {k}"
        )
    return packed[HEADER_BYTES:].reshape(n, k) != 0

"""The packed weight-only format, as far as Python knows it: a 64-byte header, then the weight.

Layout ``plain`` (``nr == 0``) is the one of the pure-torch reference; all others belong to the
compiled kernels (``csrc/cpu/weight_only/pack.h`` draws both).
"""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

HEADER_BYTES = 64
MAGIC = b"pyopsWO\0"
VERSION = 1
GROUP_SIZES = (32, 64, 128)
_HEADER = struct.Struct("<8siiiiqqi20x")


def group_count(k: int, group_size: int) -> int:
    """Groups of a row of ``k`` values; the last one may be shorter."""
    return -(-k // group_size)


@dataclass(frozen=True)
class Header:
    """``bits``: 8 or 4. ``group``: values of k that share a scale, 0 for int8. ``n, k``: shape."""

    nr: int
    bits: int
    group: int
    n: int
    k: int
    zeros: bool

    @property
    def layout(self) -> str:
        return f"n{self.nr}k8" if self.nr else "plain"

    @property
    def plain_bytes(self) -> int:
        """Length of layout ``plain``."""
        if self.bits == 8:
            return HEADER_BYTES + self.n * self.k
        per_group = 5 if self.zeros else 4
        row = group_count(self.k, self.group) * per_group + (self.k + 1) // 2
        return HEADER_BYTES + self.n * row


def read_header(packed: Tensor) -> Header:
    """The header of a packed weight.

    Raises:
        ValueError: not made by ``int8_weight_pack`` or ``int4_pack``, or by another version.
    """
    if packed.numel() < HEADER_BYTES:
        raise ValueError(f"packed weight: {packed.numel()} bytes, shorter than its header of 64")
    raw = bytes(packed[:HEADER_BYTES].tolist())
    magic, version, nr, bits, group, n, k, zeros = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise ValueError("packed weight: not made by a weight-only pack (no header)")
    if version != VERSION:
        raise ValueError(f"packed weight: version {version}, expected {VERSION}")
    known = (bits, group, zeros) == (8, 0, 0) or (bits == 4 and group in GROUP_SIZES)
    if not known or zeros not in (0, 1) or min(nr, n, k) < 0:
        raise ValueError("packed weight: its header is damaged")
    return Header(nr, bits, group, n, k, zeros == 1)


def pack_plain_int8(weight: Tensor) -> Tensor:
    """Layout ``plain`` of an int8 ``weight [N, K]``."""
    n, k = weight.shape
    return _join(Header(0, 8, 0, n, k, False), weight)


def pack_plain_int4(codes: Tensor, scale: Tensor, zero: Tensor | None, group_size: int) -> Tensor:
    """Layout ``plain`` of int4 codes, as ``int4_pack`` takes them."""
    n, k = codes.shape
    header = Header(0, 4, group_size, n, k, zero is not None)
    parts = [scale, nibbles(codes)] + ([] if zero is None else [zero])
    return _join(header, *parts)


def _join(header: Header, *parts: Tensor) -> Tensor:
    raw = _HEADER.pack(
        MAGIC, VERSION, 0, header.bits, header.group, header.n, header.k, header.zeros
    )
    device = parts[0].device
    flat = [part.contiguous().reshape(-1).view(torch.uint8) for part in parts]
    return torch.cat((torch.tensor(list(raw), dtype=torch.uint8, device=device), *flat))


def _plain_header(packed: Tensor, bits: int) -> Header:
    header = read_header(packed)
    if header.layout != "plain":
        raise ValueError(f"packed weight: layout {header.layout}, but the reference takes plain")
    if header.bits != bits:
        raise ValueError(f"packed weight: codes of {header.bits} bits, expected {bits}")
    if packed.numel() != header.plain_bytes:
        raise ValueError(
            f"packed weight: {packed.numel()} bytes, expected {header.plain_bytes} for "
            f"{header.n} x {header.k}"
        )
    return header


def unpack_plain_int8(packed: Tensor) -> Tensor:
    """The int8 weight ``[N, K]`` of layout ``plain``.

    Raises:
        ValueError: another layout or number of bits, or a length that the header contradicts.
    """
    header = _plain_header(packed, 8)
    return packed[HEADER_BYTES:].view(torch.int8).reshape(header.n, header.k).clone()


def unpack_plain_int4(packed: Tensor) -> tuple[Header, Tensor, Tensor, Tensor | None]:
    """Header, codes ``[N, K]``, scale and zero ``[N, groups]`` (or None) of layout ``plain``.

    Raises:
        ValueError: another layout or number of bits, or a length that the header contradicts.
    """
    header = _plain_header(packed, 4)
    n, groups = header.n, group_count(header.k, header.group)
    sizes = [4 * n * groups, n * ((header.k + 1) // 2), n * groups * header.zeros]
    scale, packed_codes, zero = torch.split(packed[HEADER_BYTES:], sizes)
    codes = from_nibbles(packed_codes.reshape(n, (header.k + 1) // 2), header.k, not header.zeros)
    shape = (n, groups)
    scales = scale.clone().view(torch.float32).reshape(shape)
    return header, codes, scales, zero.reshape(shape).clone() if header.zeros else None


def nibbles(codes: Tensor) -> Tensor:
    """int4 codes ``[N, K]`` two to a byte: uint8 ``[N, ceil(K / 2)]``, the lower half first."""
    low = codes.view(torch.uint8) & 15
    if codes.shape[1] % 2:
        low = torch.nn.functional.pad(low, (0, 1))
    return low[:, ::2] | (low[:, 1::2] << 4)


def from_nibbles(packed: Tensor, k: int, signed: bool) -> Tensor:
    """The inverse of ``nibbles``: int8 in [-8, 7], or uint8 in [0, 15] where not ``signed``."""
    rows, columns = packed.shape
    both = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(rows, 2 * columns)[:, :k]
    if not signed:
        return both.contiguous()
    return ((both ^ 8).view(torch.int8) - 8).contiguous()

"""Packing of weight-only weights, and the int4 quantizer.

int8 weights are those of ``quantize_weight``; int4 weights have a scale, and where asymmetric a
zero point, for every group of 32, 64 or 128 values along K, as in GPTQ (Frantar et al. 2022) and
AWQ (Lin et al. 2023).
"""

import torch
from torch import Tensor

from . import checks
from . import weight_only_checks as own
from . import weight_only_reference as plain
from .define import define
from .int8_gemm_reference import divide
from .weight_only_packing import group_count

define("int8_weight_pack(Tensor weight) -> Tensor", plain)
define("int8_weight_unpack(Tensor packed, int n, int k) -> Tensor", plain)
define("int4_pack(Tensor codes, Tensor scale, Tensor? zero, int group_size) -> Tensor", plain)
define(
    "int4_unpack(Tensor packed, int n, int k, int group_size, bool zeros) -> (Tensor, Tensor, "
    "Tensor)",
    plain,
)

_FLOAT32_MIN = torch.finfo(torch.float32).tiny
# Ranges that a symmetric group tries, as multiples of its largest absolute value.
_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)


def int8_weight_pack(weight: Tensor) -> Tensor:
    """Pack an int8 ``weight [N, K]`` for the weight-only kernel that runs now; 1-D uint8.

    The bytes depend on the CPU: keep the weight itself in files. ``int8_weight_unpack`` inverts it.

    Raises:
        TypeError: ``weight`` is not int8.
        ValueError: not 2-D.
    """
    checks.int8_weight("int8_weight_pack", weight)
    out: Tensor = torch.ops.pyops.int8_weight_pack.default(weight)
    return out


def int8_weight_unpack(packed: Tensor, n: int, k: int) -> Tensor:
    """The int8 weight ``[n, k]`` that ``int8_weight_pack`` packed, whatever kernel it was for.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor.
        RuntimeError, ValueError: not such a packed weight, or of another shape.
    """
    checks.packed("int8_weight_unpack", packed, "int8_weight_pack")
    out: Tensor = torch.ops.pyops.int8_weight_unpack.default(packed, n, k)
    return out


def int4_pack(
    codes: Tensor, scale: Tensor, zero: Tensor | None = None, *, group_size: int = 128
) -> Tensor:
    """Pack int4 codes, their scales and zero points for the kernel that runs now; 1-D uint8.

    The weight is ``(codes - zero) * scale``, each scale for ``group_size`` values along K (the last
    group of a row may be shorter). ``int4_unpack`` inverts it.

    Args:
        codes: int8 ``[N, K]`` in [-8, 7]; with ``zero`` uint8 in [0, 15].
        scale: float32 ``[N, ceil(K / group_size)]``.
        zero: uint8 in [0, 15], like ``scale``; None means 0.
        group_size: 32, 64 or 128.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
    """
    own.int4_pack(codes, scale, zero, group_size)
    own.int4_values(codes, zero)
    out: Tensor = torch.ops.pyops.int4_pack.default(codes, scale, zero, group_size)
    return out


def int4_unpack(
    packed: Tensor, n: int, k: int, *, group_size: int = 128, zeros: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes ``[n, k]``, scale and zero (None without ``zeros``) that ``int4_pack`` packed.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor.
        RuntimeError, ValueError: not such a packed weight, or of another shape or format.
    """
    own.group_size("int4_unpack", group_size)
    checks.packed("int4_unpack", packed, "int4_pack")
    codes, scale, zero = torch.ops.pyops.int4_unpack.default(packed, n, k, group_size, zeros)
    return codes, scale, zero if zeros else None


def quantize_weight_int4(
    weight: Tensor, group_size: int = 128, symmetric: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """int4 weight with a scale per group of ``group_size`` values along K.

    Symmetric: codes in [-8, 7]. The scale is that of six with the least squared error over its
    group: ``absmax / 7`` times 1, 0.95, ... 0.75 (a smaller range clips the largest values and is
    finer for all others). Asymmetric: codes in [0, 15], ``scale = (max - min) / 15`` over a range
    that holds 0, so that a weight of 0 stays 0, and ``zero = rne(-min / scale)``. A group of zeros
    gets scale 1.

    Args:
        weight: float ``[N, K]``.
        group_size: 32, 64 or 128.

    Returns:
        codes ``[N, K]``, int8 or where asymmetric uint8; float32 scales ``[N, groups]``; zero
        points uint8 ``[N, groups]``, or None where symmetric.

    Raises:
        TypeError: not float32, bfloat16 or float16.
        ValueError: not 2-D, another group size, or a value is NaN or infinite.
    """
    if weight.dtype not in checks.FLOATS:
        raise TypeError(
            f"quantize_weight_int4: weight must be {checks.FLOAT_NAMES}, but is {weight.dtype}"
        )
    if weight.dim() != 2:
        raise ValueError(
            f"quantize_weight_int4: weight must be 2-D [N, K], but is {weight.dim()}-D"
        )
    own.group_size("quantize_weight_int4", group_size)
    n, k = weight.shape
    groups = group_count(k, group_size)
    w = weight.detach().to(torch.float32)
    bad = ~torch.isfinite(w).all(1)
    if bool(bad.any()):
        channel = int(torch.nonzero(bad)[0])
        raise ValueError(f"quantize_weight_int4: output channel {channel} holds NaN or Inf")
    # Zeros at the end change no absmax and no range that holds 0, and their own error is 0.
    grouped = torch.nn.functional.pad(w, (0, groups * group_size - k))
    grouped = grouped.reshape(n, groups, group_size)
    quantizer = _symmetric if symmetric else _asymmetric
    codes, scale, zero = quantizer(grouped)
    return codes.flatten(1)[:, :k].contiguous(), scale, zero


def _symmetric(w: Tensor) -> tuple[Tensor, Tensor, None]:
    absmax = w.abs().amax(-1)
    best = best_scale = codes = None
    for shrink in _SHRINK:
        scale = torch.where(absmax == 0, 1.0, (absmax * (shrink / 7)).clamp(min=_FLOAT32_MIN))
        q = torch.round(w / scale[..., None]).clamp(-8, 7)
        error = (q * scale[..., None] - w).square().sum(-1)
        if best is None or codes is None or best_scale is None:
            best, best_scale, codes = error, scale, q
            continue
        better = error < best
        best, best_scale = torch.where(better, error, best), torch.where(better, scale, best_scale)
        codes = torch.where(better[..., None], q, codes)
    assert codes is not None
    assert best_scale is not None
    return codes.to(torch.int8), best_scale, None


def _asymmetric(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = w.amin(-1).clamp(max=0.0), w.amax(-1).clamp(min=0.0)
    scale = divide(high, 15) - divide(low, 15)
    scale = torch.where(scale == 0, 1.0, scale.clamp(min=_FLOAT32_MIN))
    zero = torch.round(-low / scale).clamp(0, 15)
    codes = (torch.round(w / scale[..., None]) + zero[..., None]).clamp(0, 15)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)

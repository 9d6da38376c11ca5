"""int8 matrix products with a fused epilogue, and the quantizer that feeds them.

``int8_gemm``: ``acc[m, n] = sum_k a[m, k] * w[n, k]`` in int32, then the epilogue of
``epilogue.py``. ``int8_gemm_linear.py`` has the ops that quantize their input in the same call.
Symmetric int8 weights with a scale per output channel; see "Integer-arithmetic-only inference",
Jacob et al. 2018, for zero points and column sums.
"""

import torch
from torch import Tensor

from . import checks
from . import int8_gemm_reference as plain
from .define import define
from .epilogue import ACTIVATION_CODE, OUT_DTYPE_CODE

define("quantize_rows(Tensor x, bool symmetric, bool signed) -> (Tensor, Tensor, Tensor)", plain)
define("int8_pack(Tensor weight) -> Tensor", plain)
define("int8_unpack(Tensor packed, int n, int k) -> Tensor", plain)
define(
    "int8_gemm(Tensor a, Tensor packed, int n, Tensor? scale_a, Tensor? zero_point_a, Tensor? "
    "scale_w, Tensor? bias, Tensor? residual, int activation, int out_dtype, float out_scale, int "
    "out_zero_point) -> Tensor",
    plain,
)


def quantize_rows(
    x: Tensor, *, symmetric: bool = True, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize each row of ``x [..., K]`` (float32, bfloat16 or float16) to 8 bits.

    ``q = clamp(rne(x * (1 / scale)) + zero_point)``. Symmetric: ``scale = absmax / 127`` and the
    zero point 0 (int8) or 128 (uint8). Otherwise: ``scale = (max - min) / 255`` over a range that
    always holds 0. A row of zeros gets scale 1; a row with NaN or Inf gets scale NaN.

    Returns:
        ``q [..., K]`` of ``dtype``, ``scale [...]`` float32, ``zero_point [...]`` int32.

    Raises:
        TypeError: ``x`` or ``dtype`` is of another type.
        ValueError: ``x`` has no dimension, or requires grad.
    """
    checks.float_rows("quantize_rows", "x", x)
    checks.no_grad("quantize_rows", x)
    if dtype not in (torch.int8, torch.uint8):
        raise TypeError(f"quantize_rows: dtype must be torch.int8 or torch.uint8, but is {dtype}")
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.pyops.quantize_rows.default(
        x, symmetric, dtype == torch.int8
    )
    return out


def int8_pack(weight: Tensor) -> Tensor:
    """Pack an int8 ``weight [N, K]`` for the kernel that runs now; a 1-D uint8 tensor.

    The bytes depend on the CPU: keep the weight itself in files. ``int8_unpack`` inverts it.

    Raises:
        TypeError: ``weight`` is not int8.
        ValueError: not 2-D, or ``K > 65536``.
    """
    checks.int8_pack(weight)
    out: Tensor = torch.ops.pyops.int8_pack.default(weight)
    return out


def int8_unpack(packed: Tensor, n: int, k: int) -> Tensor:
    """The int8 weight ``[n, k]`` that ``int8_pack`` packed, whatever kernel it was packed for.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor.
        RuntimeError, ValueError: not a packed weight, or of another shape.
    """
    checks.packed("int8_unpack", packed)
    out: Tensor = torch.ops.pyops.int8_unpack.default(packed, n, k)
    return out


def int8_gemm(
    a: Tensor,
    packed: Tensor,
    n: int,
    *,
    scale_a: Tensor | None = None,
    zero_point_a: Tensor | None = None,
    scale_w: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype = torch.float32,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
) -> Tensor:
    """``activation((a - zero_point_a) @ w.T * scale_a * scale_w + bias + residual)``.

    Args:
        a: int8 or uint8 ``[..., K]``.
        packed: ``int8_pack`` or ``sparse_pack`` of the int8 weight ``[n, K]``.
        n: output channels.
        scale_a: float32, one element (per tensor) or one per row of ``a``. None means 1.
        zero_point_a: int32, like ``scale_a``. None means 0.
        scale_w, bias: float32 ``[n]``.
        residual: float32, bfloat16 or float16 ``[..., n]``, added before the activation.
        activation: one of ``ACTIVATIONS``.
        out_dtype: float32, bfloat16 or float16; int8 or uint8 requantize with ``out_scale`` and
            ``out_zero_point``; int32 returns the sums, and takes no scale, bias or activation.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    checks.no_grad("int8_gemm", scale_a, scale_w, bias, residual)
    try:
        act, to = ACTIVATION_CODE[activation], OUT_DTYPE_CODE[out_dtype]
        out: Tensor = torch.ops.pyops.int8_gemm.default(
            a,
            packed,
            n,
            scale_a,
            zero_point_a,
            scale_w,
            bias,
            residual,
            act,
            to,
            out_scale,
            out_zero_point,
        )
        return out
    except (KeyError, TypeError, RuntimeError) as error:
        refused = error
    # The kernel checks its arguments in less time; these say why in the words of the references.
    checks.int8_gemm(a, packed, n, scale_a, zero_point_a, scale_w, bias, residual, out_dtype)
    checks.int8_gemm_output(activation, out_dtype, out_scale, out_zero_point)
    checks.finite_scale(scale_a, out_dtype)
    raise refused


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 weight with a scale per output channel.

    Args:
        weight: float ``[N, K]``.

    Returns:
        int8 ``[N, K]`` in [-127, 127] and float32 scales ``[N]`` (absmax / 127; 1 for a channel
        of zeros).

    Raises:
        TypeError: not float32, bfloat16 or float16.
        ValueError: not 2-D, or a value is NaN or infinite.
    """
    if weight.dtype not in checks.FLOATS:
        raise TypeError(
            "quantize_weight: weight must be torch.float32, torch.bfloat16 or torch.float16, "
            f"but is {weight.dtype}"
        )
    if weight.dim() != 2:
        raise ValueError(f"quantize_weight: weight must be 2-D [N, K], but is {weight.dim()}-D")
    q, scale, _ = torch.ops.pyops.quantize_rows.default(weight.detach(), True, True)
    if not bool(torch.isfinite(scale).all()):
        channel = int(torch.nonzero(~torch.isfinite(scale))[0])
        raise ValueError(f"quantize_weight: output channel {channel} holds NaN or Inf")
    return q, scale

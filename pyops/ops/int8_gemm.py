"""int8 matrix products with a fused epilogue, and the quantizer that feeds them.

``int8_gemm``: ``acc[m, n] = sum_k a[m, k] * w[n, k]`` in int32, then the epilogue of
``epilogue.py``. ``int8_linear`` quantizes its float input row by row and multiplies in one call.
Symmetric int8 weights with a scale per output channel; see "Integer-arithmetic-only inference",
Jacob et al. 2018, for zero points and column sums.

(Over 300 lines: five ops share one stem, and each has its schema, reference, fake and function.)
"""

import torch
from torch import Tensor

from . import checks, packing
from .epilogue import ACTIVATION_CODE, ACTIVATIONS, OUT_DTYPE_CODE, OUT_DTYPES, finish

torch.library.define(
    "pyops::quantize_rows", "(Tensor x, bool symmetric, bool signed) -> (Tensor, Tensor, Tensor)"
)
torch.library.define("pyops::int8_pack", "(Tensor weight) -> Tensor")
torch.library.define("pyops::int8_unpack", "(Tensor packed, int n, int k) -> Tensor")
torch.library.define(
    "pyops::int8_gemm",
    "(Tensor a, Tensor packed, int n, Tensor? scale_a, Tensor? zero_point_a, Tensor? scale_w, "
    "Tensor? bias, Tensor? residual, int activation, int out_dtype, float out_scale, "
    "int out_zero_point) -> Tensor",
)
torch.library.define(
    "pyops::int8_linear",
    "(Tensor x, Tensor packed, Tensor scale_w, Tensor? bias, Tensor? residual, int activation, "
    "int out_dtype) -> Tensor",
)

_FLOAT32_MIN = torch.finfo(torch.float32).tiny


def quantize_rows_reference(
    x: Tensor, symmetric: bool, signed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    checks.quantize_rows(x)
    v = x.to(torch.float32)
    if v.shape[-1] == 0:
        low = high = v.new_zeros(v.shape[:-1])
    else:
        low, high = v.amin(-1).clamp(max=0.0), v.amax(-1).clamp(min=0.0)
    finite = torch.isfinite(v).all(-1)
    scale = torch.maximum(-low, high) / 127.0 if symmetric else high / 255.0 - low / 255.0
    scale = torch.where(scale == 0, 1.0, scale.clamp(min=_FLOAT32_MIN))
    scale = torch.where((low == 0) & (high == 0), 1.0, scale)
    inverse = torch.where(finite, 1.0 / scale, 0.0)
    if symmetric:
        zero, bounds = torch.full_like(scale, 128.0), (1.0, 255.0)
    else:
        zero, bounds = torch.round(-low * inverse).nan_to_num(0.0).clamp(0.0, 255.0), (0.0, 255.0)
    rounded = torch.round(v * inverse[..., None]).nan_to_num(0.0, 0.0, 0.0)
    code = (rounded + zero[..., None]).clamp(*bounds).to(torch.int32)
    zero_point = zero.to(torch.int32)
    scale = torch.where(finite, scale, torch.nan)
    if signed:
        return (code - 128).to(torch.int8), scale, zero_point - 128
    return code.to(torch.uint8), scale, zero_point


def quantize_rows_fake(x: Tensor, symmetric: bool, signed: bool) -> tuple[Tensor, Tensor, Tensor]:
    checks.quantize_rows(x)
    q = x.new_empty(x.shape, dtype=torch.int8 if signed else torch.uint8)
    rows = x.shape[:-1]
    return q, x.new_empty(rows, dtype=torch.float32), x.new_empty(rows, dtype=torch.int32)


def int8_pack_reference(weight: Tensor) -> Tensor:
    checks.int8_pack(weight)
    return packing.pack_plain(weight)


def int8_pack_fake(weight: Tensor) -> Tensor:
    checks.int8_pack(weight)
    # The length depends on the layout, so on the kernel that runs: unknown while tracing.
    size = torch.library.get_ctx().new_dynamic_size(min=packing.HEADER_BYTES)
    return weight.new_empty((size,), dtype=torch.uint8)


def int8_unpack_reference(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("int8_unpack", packed)
    weight = packing.unpack_plain(packed)
    if weight.shape != (n, k):
        raise ValueError(
            f"int8_unpack: the packed weight is {tuple(weight.shape)}, but n, k = {n}, {k} given"
        )
    return weight


def int8_unpack_fake(packed: Tensor, n: int, k: int) -> Tensor:
    checks.packed("int8_unpack", packed)
    return packed.new_empty((n, k), dtype=torch.int8)


def int8_product(a: Tensor, weight: Tensor) -> Tensor:
    """Exact ``a @ weight.T`` in int32, for int8 or uint8 ``a [M, K]`` and int8 ``weight [N, K]``.

    512 products of at most 255 * 128 stay below 2^24, so float32 holds each partial sum exactly.
    """
    total = torch.zeros(a.shape[0], weight.shape[0], dtype=torch.int32, device=a.device)
    for k in range(0, a.shape[1], 512):
        part = a[:, k : k + 512].float() @ weight[:, k : k + 512].float().T
        total += part.to(torch.int32)
    return total


def int8_gemm_reference(
    a: Tensor,
    packed: Tensor,
    n: int,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype = OUT_DTYPES[out_dtype]
    checks.int8_gemm(a, packed, n, scale_a, zero_point_a, scale_w, bias, residual, dtype)
    weight = packing.unpack_plain(packed)
    checks.weight_shape("int8_gemm", weight.shape, n, a.shape[-1])
    rows = a.reshape(-1, a.shape[-1]) if a.shape[-1] else a.reshape(a.shape[:-1].numel(), 0)
    acc = int8_product(rows, weight)
    out = finish(
        acc,
        weight.sum(1, dtype=torch.int32),
        scale_a=scale_a,
        zero_point_a=zero_point_a,
        scale_w=scale_w,
        bias=bias,
        residual=None if residual is None else residual.reshape(acc.shape),
        activation=ACTIVATIONS[activation],
        out_dtype=dtype,
        out_scale=out_scale,
        out_zero_point=out_zero_point,
    )
    return out.reshape(*a.shape[:-1], n)


def int8_gemm_fake(
    a: Tensor,
    packed: Tensor,
    n: int,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
    out_scale: float,
    out_zero_point: int,
) -> Tensor:
    dtype = OUT_DTYPES[out_dtype]
    checks.int8_gemm(a, packed, n, scale_a, zero_point_a, scale_w, bias, residual, dtype)
    return a.new_empty((*a.shape[:-1], n), dtype=dtype)


def int8_linear_reference(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    checks.int8_linear(x, packed, scale_w, bias, residual, OUT_DTYPES[out_dtype])
    q, scale, _ = quantize_rows_reference(x, True, True)
    n = scale_w.shape[0]
    return int8_gemm_reference(
        q, packed, n, scale, None, scale_w, bias, residual, activation, out_dtype, 1.0, 0
    )


def int8_linear_fake(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
    out_dtype: int,
) -> Tensor:
    dtype = OUT_DTYPES[out_dtype]
    checks.int8_linear(x, packed, scale_w, bias, residual, dtype)
    return x.new_empty((*x.shape[:-1], scale_w.shape[0]), dtype=dtype)


for _op, _reference, _fake in (
    ("pyops::quantize_rows", quantize_rows_reference, quantize_rows_fake),
    ("pyops::int8_pack", int8_pack_reference, int8_pack_fake),
    ("pyops::int8_unpack", int8_unpack_reference, int8_unpack_fake),
    ("pyops::int8_gemm", int8_gemm_reference, int8_gemm_fake),
    ("pyops::int8_linear", int8_linear_reference, int8_linear_fake),
):
    torch.library.impl(_op, "default", _reference)
    torch.library.register_fake(_op, _fake)


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
    checks.quantize_rows(x)
    checks.no_grad("quantize_rows", x)
    if dtype not in (torch.int8, torch.uint8):
        raise TypeError(f"quantize_rows: dtype must be torch.int8 or torch.uint8, but is {dtype}")
    out: tuple[Tensor, Tensor, Tensor] = torch.ops.pyops.quantize_rows(
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
    out: Tensor = torch.ops.pyops.int8_pack(weight)
    return out


def int8_unpack(packed: Tensor, n: int, k: int) -> Tensor:
    """The int8 weight ``[n, k]`` that ``int8_pack`` packed, whatever kernel it was packed for.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor.
        RuntimeError, ValueError: not a packed weight, or of another shape.
    """
    checks.packed("int8_unpack", packed)
    out: Tensor = torch.ops.pyops.int8_unpack(packed, n, k)
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
        packed: ``int8_pack`` of the weight ``[n, K]``.
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
    checks.int8_gemm(a, packed, n, scale_a, zero_point_a, scale_w, bias, residual, out_dtype)
    checks.int8_gemm_output(scale_a, activation, out_dtype, out_scale, out_zero_point)
    checks.no_grad("int8_gemm", scale_a, scale_w, bias, residual)
    out: Tensor = torch.ops.pyops.int8_gemm(
        a,
        packed,
        n,
        scale_a,
        zero_point_a,
        scale_w,
        bias,
        residual,
        ACTIVATION_CODE[activation],
        OUT_DTYPE_CODE[out_dtype],
        out_scale,
        out_zero_point,
    )
    return out


def int8_linear(
    x: Tensor,
    packed: Tensor,
    scale_w: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(x @ w.T + bias + residual)`` with each row of ``x`` quantized to int8.

    The same as symmetric ``quantize_rows`` and then ``int8_gemm``, in one call.

    Args:
        x: float32, bfloat16 or float16 ``[..., K]``.
        packed, scale_w, bias, residual, activation: as for ``int8_gemm``.
        out_dtype: float32, bfloat16 or float16; None means that of ``x``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    dtype = x.dtype if out_dtype is None else out_dtype
    checks.int8_linear(x, packed, scale_w, bias, residual, dtype)
    checks.no_grad("int8_linear", x, scale_w, bias, residual)
    if activation not in ACTIVATION_CODE:
        raise checks.unknown_activation("int8_linear", activation)
    out: Tensor = torch.ops.pyops.int8_linear(
        x, packed, scale_w, bias, residual, ACTIVATION_CODE[activation], OUT_DTYPE_CODE[dtype]
    )
    return out


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 weight with a scale per output channel.

    Args:
        weight: float ``[N, K]``.

    Returns:
        int8 ``[N, K]`` in [-127, 127] and float32 scales ``[N]`` (absmax / 127; 1 for a channel
        of zeros).

    Raises:
        ValueError: not 2-D, or a value is NaN or infinite.
    """
    if weight.dim() != 2:
        raise ValueError(f"quantize_weight: weight must be 2-D [N, K], but is {weight.dim()}-D")
    q, scale, _ = torch.ops.pyops.quantize_rows(weight.detach(), True, True)
    if not bool(torch.isfinite(scale).all()):
        channel = int(torch.nonzero(~torch.isfinite(scale))[0])
        raise ValueError(f"quantize_weight: output channel {channel} holds NaN or Inf")
    return q, scale

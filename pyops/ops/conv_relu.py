"""Float convolution with bias, residual and activation in one call, on channels_last images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends
from . import checks, pairs
from . import conv_relu_checks as own
from . import conv_relu_reference as plain
from .conv_relu_packing import ALGORITHMS, WEIGHT_DTYPES
from .define import define
from .epilogue import CONV_ACTIVATION_CODE, CONV_ACTIVATIONS

define("conv_relu_pack(Tensor weight, int groups, int algorithm) -> Tensor", plain)
define(
    "conv_relu_unpack(Tensor packed, int[] weight_shape, int weight_dtype) -> Tensor",
    plain,
)
define(
    "conv_relu(Tensor x, Tensor packed, int[] weight_shape, int[] stride, int[] padding, "
    "int[] dilation, Tensor? bias, Tensor? residual, int activation, float low, float high, "
    "Tensor? slope) -> Tensor",
    plain,
)


def conv_relu_pack(weight: Tensor, groups: int = 1, algorithm: str = "direct") -> Tensor:
    """Pack ``weight [OC, C / groups, KH, KW]`` for the kernel that runs now; 1-D uint8.

    The bytes depend on the CPU: keep the weight itself in files. ``conv_relu_unpack`` inverts it.

    Args:
        weight: float32 or bfloat16.
        groups: as in ``torch.nn.Conv2d``.
        algorithm: "direct", or for a float32 weight ``[OC, C, 3, 3]`` "winograd": F(2x2, 3x3) of
            Lavin and Gray (2015), 16 products for every 36. Calls then take stride 1 and dilation
            1, and have another bound (``conv_relu``). The weight takes 25 / 9 of the memory.
            Or "sparse": only entries that are not 0 are held and multiplied
            (``pyops.ops.sparse_linear``), of any weight and geometry.

    Raises:
        TypeError: ``weight`` is neither float32 nor bfloat16.
        ValueError: not 4-D, a size of 0, ``groups`` does not divide OC, or ``algorithm`` is no such
            one or does not take the weight.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"conv_relu_pack: algorithm must be one of {ALGORITHMS}, but is {algorithm!r}"
        )
    code = ALGORITHMS.index(algorithm)
    own.pack(weight, groups, code)
    checks.no_grad("conv_relu_pack", weight)
    out: Tensor = torch.ops.pyops.conv_relu_pack.default(weight, groups, code)
    return out


# Of fewer channels the transforms cost what products save.
LEAST_WINOGRAD_CHANNELS = 32


def faster_algorithm(
    weight_shape: Sequence[int],
    dtype: torch.dtype,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> str:
    """The faster ``algorithm`` of ``conv_relu_pack`` for calls with that geometry.

    "winograd" for 3 x 3 taps of stride 1 and dilation 1 between at least 32 channels without
    groups, in float32; ``python bench/run.py conv_relu`` measures both.
    """
    near = max(*stride, *dilation) == 1 and dtype == torch.float32
    enough = min(weight_shape[:2]) >= LEAST_WINOGRAD_CHANNELS
    pays = near and enough and own.winograd_takes(weight_shape, groups)
    return "winograd" if pays else "direct"


def conv_relu_unpack(
    packed: Tensor, weight_shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """The weight that ``conv_relu_pack`` packed, whatever kernel it was for.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor, or ``dtype`` neither float32 nor bfloat16.
        RuntimeError, ValueError: not such a packed weight, or of another shape or dtype.
    """
    own.dtype("conv_relu_unpack", "dtype", dtype)
    checks.packed("conv_relu_unpack", packed, "conv_relu_pack")
    out: Tensor = torch.ops.pyops.conv_relu_unpack.default(
        packed, list(weight_shape), WEIGHT_DTYPES.index(dtype)
    )
    return out


def conv_relu(
    x: Tensor,
    packed: Tensor,
    weight_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    low: float | None = None,
    high: float | None = None,
    slope: Tensor | None = None,
) -> Tensor:
    """``activation(conv2d(x, w) + bias + residual)``, as ``torch.nn.functional.conv2d``.

    float32 sums are within ``(K + 2) * 2**-24 * (|x| conv |w|)`` of the exact ones, with
    ``K = KH * KW * C / groups``; bfloat16 products are summed in float32. Sums of a weight that is
    packed for Winograd's algorithm are within ``(C + 10) * 2**-24`` of what the algorithm comes to
    where every number in it, and in its matrices, is replaced by its magnitude, leaving out
    underflow and the overflow of values above 2**126; an infinity may become NaN. (Small images,
    over which its tiles would hang far, are convolved directly.) Results do not depend on the
    number of threads.

    Args:
        x: float32 or bfloat16 ``[N, C, H, W]``; one that is not channels_last is converted.
        packed: ``conv_relu_pack`` of a weight of the same dtype.
        weight_shape: its ``[OC, C / groups, KH, KW]``.
        stride, dilation: one number, or ``(height, width)``.
        padding: zeros around the image: one number, ``(height, width)``,
            ``(top, bottom, left, right)``, or "same" with stride 1.
        bias: float32 ``[OC]``.
        residual: ``[N, OC, OH, OW]`` of x's dtype, added before the activation.
        activation: one of ``CONV_ACTIVATIONS``.
        low, high: the bounds of "clamp".
        slope: of "leaky_relu" below 0: float32 ``[1]``, or ``[OC]`` (PReLU).

    Returns:
        ``[N, OC, OH, OW]`` of x's dtype, channels_last.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    checks.no_grad(own.OP, x, bias, residual, slope)
    steps, spread = _pair("stride", stride), _pair("dilation", dilation)
    around = _padding(padding, weight_shape, steps, spread)
    code, low, high = _activation(activation, low, high)
    try:
        out: Tensor = torch.ops.pyops.conv_relu.default(
            x, packed, list(weight_shape), steps, around, spread, bias, residual, code, low, high,
            slope,
        )  # fmt: skip
        return out
    except RuntimeError as error:
        refused = error
    own.conv_relu(
        x, packed, weight_shape, steps, around, spread, bias, residual, code, low, high, slope
    )
    raise refused


def _pair(name: str, value: int | Sequence[int]) -> list[int]:
    if isinstance(value, int):
        return [value, value]
    if len(value) != 2:
        raise ValueError(f"{own.OP}: {name} must be 1 or 2 integers, but is {value!r}")
    return list(value)


def _padding(
    value: int | str | Sequence[int],
    weight_shape: Sequence[int],
    stride: list[int],
    dilation: list[int],
) -> list[int]:
    """Top, bottom, left, right."""
    if isinstance(value, int):
        return [value] * 4
    if isinstance(value, str):
        if value != "same" or stride != [1, 1]:
            raise ValueError(
                f"{own.OP}: padding as a string must be 'same', with stride 1, but is {value!r} "
                f"with stride {stride}"
            )
        own.weight_shape(own.OP, weight_shape)
        all_h, all_w = (d * (k - 1) for d, k in zip(dilation, weight_shape[2:], strict=True))
        return [all_h // 2, all_h - all_h // 2, all_w // 2, all_w - all_w // 2]
    if len(value) == 2:
        return [value[0], value[0], value[1], value[1]]
    if len(value) != 4:
        raise ValueError(
            f"{own.OP}: padding must be 1, 2 or 4 integers or 'same', but is {value!r}"
        )
    return list(value)


def _activation(name: str, low: float | None, high: float | None) -> tuple[int, float, float]:
    if name not in CONV_ACTIVATIONS:
        raise ValueError(f"{own.OP}: activation must be one of {CONV_ACTIVATIONS}, but is {name!r}")
    if name != "clamp":
        if low is not None or high is not None:
            raise ValueError(f"{own.OP}: low and high are for 'clamp', not for {name!r}")
        return CONV_ACTIVATION_CODE[name], 0.0, 0.0
    if low is None or high is None or not low <= high:
        raise ValueError(
            f"{own.OP}: 'clamp' takes low <= high, but low is {low} and high is {high}"
        )
    return CONV_ACTIVATION_CODE[name], float(low), float(high)


def kernel_of(dtype: torch.dtype) -> str:
    """The kernel that runs for images of ``dtype``; ``"reference"`` without a compiled module.

    Kernels with bfloat16 products leave float32 to the next one with float32 products.
    """
    return pairs.kernel_of(own.OP, dtype)


def panels_kernel_of(dtype: torch.dtype) -> str:
    """Kernel for sparse weights of ``dtype`` whose outputs are in lanes: one without strips."""
    name = kernel_of(dtype)
    rows = backends.implementations(own.OP)
    at = next((i for i, row in enumerate(rows) if row.name == name), 0)
    takes = (row for row in rows[at:] if row.name == name or not row.test_only)
    return next((row.name for row in takes if row.layout.endswith(("k1", "k2"))), name)


def layout_of(dtype: torch.dtype) -> str:
    """Tag of the layout in which that kernel takes weights."""
    name = kernel_of(dtype)
    rows = backends.implementations(own.OP)
    return next((row.layout for row in rows if row.name == name), "plain")


def multiplies_pairs(dtype: torch.dtype) -> bool:
    """Whether the kernel for ``dtype`` multiplies pairs of bfloat16."""
    return pairs.multiplies_pairs(own.OP, dtype)

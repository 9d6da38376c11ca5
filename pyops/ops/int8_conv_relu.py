"""int8 convolutions with everything around them in one call: ReLU, shortcut, requantization.

``acc = sum (x - zero_point_x) * w`` over the taps and channels of a pixel in int32, positions
outside the image counting as zero, then the epilogue of ``epilogue.py``. Images lie in NHWC order
(``torch.channels_last``). Symmetric int8 weights with a scale per output channel; zero points as in
"Integer-arithmetic-only inference", Jacob et al. 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks, conv_checks
from . import int8_conv_relu_reference as plain
from .conv_arguments import images, padding_of, pair
from .define import define
from .epilogue import CONV_ACTIVATION_CODE, OUT_DTYPE_CODE, Activation
from .int8_conv_packing import read_conv_header
from .int8_sparse_packing import is_sparse, read_sparse_header

define("int8_conv_pack(Tensor weight, int groups) -> Tensor", plain)
define("int8_conv_unpack(Tensor packed, int[] shape) -> Tensor", plain)
define(
    "int8_conv_relu(Tensor x, Tensor packed, int[] weight_shape, int[] stride, int[] padding, "
    "int[] dilation, float scale_x, int zero_point_x, Tensor? scale_w, Tensor? bias, "
    "Tensor? residual, float residual_scale, int residual_zero_point, int activation, float low, "
    "float high, Tensor? slope, int out_dtype, float out_scale, int out_zero_point) -> Tensor",
    plain,
)


def int8_conv_pack(weight: Tensor, groups: int = 1) -> Tensor:
    """Pack an int8 convolution weight for the kernel that runs now; a 1-D uint8 tensor.

    The bytes depend on the CPU: keep the weight itself in files. ``int8_conv_unpack`` inverts it.

    Args:
        weight: ``[OC, C / groups, KH, KW]``, or ``[OC, C / groups, K]`` of a 1-D convolution.
        groups: as in ``torch.nn.Conv2d``.

    Raises:
        TypeError: ``weight`` is not int8.
        ValueError: it has another number of dimensions, an empty window, more than 65536 values for
            one output channel, or ``groups`` does not divide OC.
    """
    weight = weight.unsqueeze(2) if weight.dim() == 3 else weight
    conv_checks.conv_pack(weight, groups)
    out: Tensor = torch.ops.pyops.int8_conv_pack.default(weight, groups)
    return out


def int8_conv_unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The int8 weight ``[OC, C / groups, KH, KW]`` that ``int8_conv_pack`` packed.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor.
        RuntimeError, ValueError: not a packed weight, or of another shape.
    """
    checks.packed("int8_conv_unpack", packed, "int8_conv_pack")
    out: Tensor = torch.ops.pyops.int8_conv_unpack.default(packed, list(shape))
    return out


def int8_conv_relu(
    x: Tensor,
    packed: Tensor,
    weight_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    scale_x: float = 1.0,
    zero_point_x: int = 0,
    scale_w: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
    activation: str = "none",
    low: float = 0.0,
    high: float = 0.0,
    slope: Tensor | None = None,
    out_dtype: torch.dtype = torch.float32,
    out_scale: float = 1.0,
    out_zero_point: int = 0,
) -> Tensor:
    """``activation(conv(x - zero_point_x, w) * scale_x * scale_w + bias + residual)``.

    Args:
        x: int8 or uint8 ``[N, C, H, W]``, best in ``torch.channels_last`` order, or ``[N, C, L]``.
        packed: ``int8_conv_pack`` or ``sparse_pack`` of the weight, packed for so many groups.
        weight_shape: its ``[OC, C / groups, KH, KW]``, or ``[OC, C / groups, K]``.
        stride, dilation: one integer or ``(h, w)``; one integer for ``[N, C, L]``.
        padding: an integer, ``(h, w)``, ``(top, bottom, left, right)``, ``(left, right)`` for
            ``[N, C, L]``, "valid", or, with stride 1, "same". With codes of ``zero_point_x``.
        scale_x, zero_point_x: of ``x``.
        scale_w, bias: float32 ``[OC]``. A bias may hold a folded BatchNorm.
        residual: like the output, added before the activation: float32, bfloat16 or float16, or
            int8 or uint8 codes of ``residual_scale`` and ``residual_zero_point``.
        activation: one of ``CONV_ACTIVATIONS``. "clamp" takes ``low`` and ``high`` (ReLU6: 0, 6),
            "leaky_relu" takes ``slope``, float32 ``[1]`` or ``[OC]`` (PReLU).
        out_dtype: float32, bfloat16 or float16; int8 or uint8 requantize with ``out_scale`` and
            ``out_zero_point``; int32 returns the sums, and takes no scale, bias or activation.

    Returns:
        ``[N, OC, OH, OW]`` in ``torch.channels_last`` order, or ``[N, OC, OL]``.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel.
    """
    op = "int8_conv_relu"
    checks.no_grad(op, scale_w, bias, residual, slope)
    lines = x.dim() == 3
    shape = conv_checks.weight_shape(op, weight_shape, lines)
    step, spread = pair(op, "stride", stride, lines, 1), pair(op, "dilation", dilation, lines, 1)
    sides = padding_of(op, padding, shape[2:], step, spread, lines)
    arguments = (
        images(x), packed, shape, step, sides, spread, scale_x, zero_point_x, scale_w, bias,
        None if residual is None else images(residual), residual_scale, residual_zero_point,
    )  # fmt: skip
    try:
        act, to = CONV_ACTIVATION_CODE[activation], OUT_DTYPE_CODE[out_dtype]
        out: Tensor = torch.ops.pyops.int8_conv_relu.default(
            *arguments, act, low, high, slope, to, out_scale, out_zero_point
        )
        return out.squeeze(2) if lines else out
    except (KeyError, TypeError, RuntimeError) as error:
        refused = error
    # The kernel checks its arguments in less time; these say why in the words of the references.
    conv_checks.activation(op, Activation(activation, low, high, slope), shape[0])
    conv_checks.output(op, out_dtype, out_scale, out_zero_point)
    act, to = CONV_ACTIVATION_CODE[activation], OUT_DTYPE_CODE[out_dtype]
    plain.int8_conv_relu_fake(*arguments, act, low, high, slope, to, out_scale, out_zero_point)
    header = read_sparse_header(packed) if is_sparse(packed) else read_conv_header(packed)
    conv_checks.packed_shape(op, header, shape, arguments[0].shape[1])
    raise refused

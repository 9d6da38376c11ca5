"""Products with a sparse weight: only what is not zero is held, loaded and multiplied.

Convolutions with a sparse weight are ``conv_relu`` with ``conv_relu_pack(algorithm="sparse")``.
A sparse int8 weight goes where a dense one does: ``int8_gemm``, ``int8_linear``,
``int8_conv_relu``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from . import sparse_gemm_checks as own
from . import sparse_gemm_reference as plain
from .define import define
from .epilogue import ACTIVATION_CODE

OP = "sparse_gemm"

define("sparse_pack(Tensor weight, int groups) -> Tensor", plain)
define("sparse_unpack(Tensor packed, int[] weight_shape, int weight_dtype) -> Tensor", plain)
define("sparse_refresh(Tensor(a!) packed, Tensor weight, bool transposed) -> ()", plain)
define(
    "sparse_linear(Tensor x, Tensor packed, int n, Tensor? bias, Tensor? residual, "
    "int activation) -> Tensor",
    plain,
)


def sparse_pack(weight: Tensor, groups: int = 1) -> Tensor:
    """Pack the entries of ``weight`` that are not 0 for the kernel that runs now; 1-D uint8.

    Any pattern is taken as it is. Where 4 adjacent outputs share their pattern (blocks of 4, 16,
    32 outputs by any number of inputs, N:M shared by outputs) they are multiplied together, which
    takes less time for the same number of entries. Where 16 or 32 share most of it a float weight
    is held in panels of so many outputs, with the k that one of them has, and multiplied by the
    tiles of dense weights; and so is an int8 weight where that takes less time: for zeros in blocks
    of 32 outputs by 4 inputs, and for at most 4 entries of each output in 8 or 16 adjacent inputs
    (2:4, 4:8; 1:4, 2:8). Any other matrix is held a second time, as bits and
    values, where the kernel multiplies a few rows faster in that form: 1/8 byte for each weight and
    its size for each entry. The bytes depend on the CPU: keep the weight itself in files.
    ``sparse_unpack`` inverts it.

    Args:
        weight: float32, bfloat16 or int8 ``[N, K]`` or ``[OC, C / groups, KH, KW]``.
        groups: as in ``torch.nn.Conv2d``.

    Raises:
        TypeError: ``weight`` is neither float32 nor bfloat16 nor int8.
        ValueError: neither 2-D nor 4-D, a size of 0, ``groups`` does not divide OC, or an int8
            weight has more than 65536 values for one output.
    """
    image = as_image(weight)
    own.pack(image, groups)
    checks.no_grad("sparse_pack", weight)
    out: Tensor = torch.ops.pyops.sparse_pack.default(image, groups)
    return out


def sparse_unpack(
    packed: Tensor, weight_shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """The weight that ``sparse_pack`` packed, whatever kernel it was for, with its zeros.

    Raises:
        TypeError: ``packed`` is not a 1-D uint8 tensor, or ``dtype`` neither float32 nor bfloat16
            nor int8.
        RuntimeError, ValueError: not such a packed weight, or of another shape or dtype.
    """
    own.weight_dtype("sparse_unpack", "dtype", dtype)
    checks.packed("sparse_unpack", packed, "sparse_pack")
    shape = [*weight_shape, 1, 1] if len(weight_shape) == 2 else list(weight_shape)
    out: Tensor = torch.ops.pyops.sparse_unpack.default(packed, shape, own.DTYPES.index(dtype))
    return out.flatten(1) if len(weight_shape) == 2 else out


def sparse_refresh(packed: Tensor, weight: Tensor, transposed: bool = False) -> None:
    """Gives the entries of ``packed``, in place, the values that they have in ``weight``.

    What ``sparse_pack`` did not take as an entry stays 0, and an entry may become 0: after an
    optimizer's step this is one pass over the entries.

    Args:
        packed: ``sparse_pack`` of a weight of the same shape and dtype.
        weight: float32 or bfloat16 ``[N, K]`` or ``[OC, C / groups, KH, KW]``.
        transposed: ``packed`` is of the transpose of this ``weight [N, K]``.

    Raises:
        TypeError, ValueError, RuntimeError: another dtype or shape than ``packed`` holds.
    """
    checks.no_grad("sparse_refresh", weight)
    given = weight if transposed else as_image(weight)
    own.refresh(packed, given, transposed)
    torch.ops.pyops.sparse_refresh.default(packed, given, transposed)


def sparse_linear(
    x: Tensor,
    packed: Tensor,
    n: int,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """``activation(x @ w.T + bias + residual)`` with a sparse weight ``w [N, K]``.

    Sums are float32 and within ``(K + 2) * 2**-24 * (|x| @ |w.T|)`` of the exact ones; of bfloat16
    within ``K * 2**-126`` more, as kernels that multiply pairs take denormals for 0. An entry of
    ``w`` that is 0 is not multiplied, or by 0 where it fills up a group of outputs: an infinity or
    NaN in ``x`` reaches every output that has an entry for it, and maybe others. Results do not
    depend on the number of threads.

    Args:
        x: float32 or bfloat16 ``[..., K]``.
        packed: ``sparse_pack`` of a weight of the same dtype.
        n: its number of outputs.
        bias: float32 ``[N]``.
        residual: ``[..., N]`` of x's dtype, added before the activation.
        activation: one of ``ACTIVATIONS``.

    Returns:
        ``[..., N]`` of x's dtype.

    Raises:
        TypeError, ValueError: an argument has another dtype, shape or value than stated.
        RuntimeError: ``packed`` is for another kernel or shape.
    """
    checks.no_grad("sparse_linear", x, bias, residual)
    checks.activations("sparse_linear", activation)
    code = ACTIVATION_CODE[activation]
    try:
        out: Tensor = torch.ops.pyops.sparse_linear.default(x, packed, n, bias, residual, code)
        return out
    except RuntimeError as error:
        refused = error
    own.linear(x, packed, n, bias, residual, code)
    raise refused


def as_image(weight: Tensor) -> Tensor:
    """A weight ``[N, K]`` as ``[N, K, 1, 1]``; others as they are."""
    return weight[..., None, None] if weight.dim() == 2 else weight

"""References of products with a sparse weight in plain torch, and their fakes.

Their packed weight is the plain one of ``conv_relu``, zeros and all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import conv_relu_packing as packing
from . import sparse_gemm_checks as own
from .conv_relu_reference import unpack_as
from .epilogue import ACTIVATIONS, Activation, finish_float
from .int8_gemm_reference import packed_of_unknown_size
from .int8_sparse_packing import pack_sparse_plain, unpack_sparse_plain

SPARSE = packing.ALGORITHMS.index("sparse")


def sparse_pack_reference(weight: Tensor, groups: int) -> Tensor:
    own.pack(weight, groups)
    if weight.dtype == torch.int8:
        return pack_sparse_plain(weight, groups)
    return packing.pack_plain(weight, groups, SPARSE)


def sparse_pack_fake(weight: Tensor, groups: int) -> Tensor:
    own.pack(weight, groups)
    return packed_of_unknown_size(weight)


def sparse_unpack_reference(packed: Tensor, weight_shape: list[int], weight_dtype: int) -> Tensor:
    own.unpack(packed, weight_shape, weight_dtype)
    dtype = own.DTYPES[weight_dtype]
    if dtype == torch.int8:
        header, weight = unpack_sparse_plain(packed)
        if list(header.shape) != list(weight_shape):
            raise ValueError(
                f"sparse_unpack: the packed weight is {list(header.shape)}, "
                f"but weight_shape is {list(weight_shape)}"
            )
        return weight
    return unpack_as("sparse_unpack", packed, weight_shape, dtype)[0]


def sparse_unpack_fake(packed: Tensor, weight_shape: list[int], weight_dtype: int) -> Tensor:
    own.unpack(packed, weight_shape, weight_dtype)
    return packed.new_empty(weight_shape, dtype=own.DTYPES[weight_dtype])


def sparse_refresh_reference(packed: Tensor, weight: Tensor, transposed: bool) -> None:
    own.refresh(packed, weight, transposed)
    image = weight.t()[..., None, None] if transposed else weight
    shape = list(image.shape)
    old, header = unpack_as("sparse_refresh", packed, shape, weight.dtype)
    # An entry that becomes 0 stays one: as -0, whose bits are not those of what is no entry.
    bits = torch.int32 if old.dtype == torch.float32 else torch.int16
    values = torch.where(image == 0, torch.full_like(image, -0.0), image)
    new = torch.where(old.view(bits) != 0, values, old)
    packed.copy_(packing.pack_plain(new, header.groups, SPARSE))


def sparse_refresh_fake(packed: Tensor, weight: Tensor, transposed: bool) -> None:
    own.refresh(packed, weight, transposed)


def sparse_linear_reference(
    x: Tensor,
    packed: Tensor,
    n: int,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
) -> Tensor:
    own.linear(x, packed, n, bias, residual, activation)
    weight, _ = unpack_as("sparse_linear", packed, [n, x.shape[-1], 1, 1], x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        v = F.linear(x.float(), weight.float().flatten(1))
    return finish_float(v, bias, residual, Activation(ACTIVATIONS[activation])).to(x.dtype)


def sparse_linear_fake(
    x: Tensor,
    packed: Tensor,
    n: int,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: int,
) -> Tensor:
    own.linear(x, packed, n, bias, residual, activation)
    return x.new_empty((*x.shape[:-1], n))

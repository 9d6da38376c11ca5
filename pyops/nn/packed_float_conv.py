"""Float weights of convolutions, held once, in the layout that the active kernel wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import backends
from ..ops.conv_relu import panels_kernel_of
from ..ops.conv_relu_checks import DTYPES, winograd_takes
from ..ops.conv_relu_packing import ALGORITHMS, WEIGHT_DTYPES, read_header
from ..ops.pairs import kernel_of
from ..ops.sparse_cost import packed_sparse, zeros_of
from ..ops.sparse_gemm import OP as SPARSE_OP
from . import packed_base
from .packed_base import Config, PackedBase

if TYPE_CHECKING:
    from typing_extensions import Self


class PackedFloatConv(PackedBase):
    """Float weight [OC, C / groups, KH, KW], packed for ``pyops.ops.conv_relu``.

    See ``PackedBase`` for what becomes of it in copies, pickles and moves. A cast to float32 or
    bfloat16 casts it; a cast to any other dtype leaves it. ``n`` is OC and ``k`` the number of
    products in one sum.

    Args:
        weight: float32 or bfloat16.
        groups: as in ``torch.nn.Conv2d``.
        algorithm: as in ``pyops.ops.conv_relu_pack``; "winograd" is "direct" while the weight is
            bfloat16.

    Raises:
        ValueError: on another dtype or number of dimensions, or an ``algorithm`` that does not take
            the weight.
    """

    op = "conv_relu"

    def __init__(self, weight: Tensor, groups: int = 1, algorithm: str = "direct") -> None:
        self.groups = groups
        self.algorithm = algorithm
        if algorithm not in ALGORITHMS:
            raise ValueError(
                f"{type(self).__name__}: algorithm must be one of {ALGORITHMS}, but is "
                f"{algorithm!r}"
            )
        self.assign(weight)

    @classmethod
    def from_float(cls, weight: Tensor, **options: Any) -> Self:
        """Packs a weight of 4 dimensions; ``groups`` and ``algorithm`` as in the constructor."""
        return cls(weight, **options)

    @classmethod
    def from_parts(cls, parts: Mapping[str, Tensor], k: int, config: Config) -> Self:
        return cls(parts["weight"], **config)

    @classmethod
    def shapes(cls, n: int, k: int, config: Config) -> dict[str, list[int]]:
        """See ``PackedBase``; the weight's own shape is that of the float layer."""
        groups, algorithm = config.get("groups"), config.get("algorithm")
        known = type(groups) is int and groups >= 1 and algorithm in ALGORITHMS
        if set(config) != {"groups", "algorithm"} or not known:
            raise ValueError(
                f"{cls.__name__} takes groups and algorithm (of {ALGORITHMS}), but {dict(config)} "
                "given"
            )
        return {"weight": [n, k]}

    def own_shapes(self) -> dict[str, list[int]]:
        return {"weight": self.shape}

    def config(self) -> dict[str, Any]:
        return {"groups": self.groups, "algorithm": self.algorithm}

    def parts(self) -> dict[str, Tensor]:
        return {"weight": self.unpack()}

    @property
    def runs_on(self) -> str:
        """See ``PackedBase``."""
        return SPARSE_OP if self.algorithm == "sparse" and not self._panels() else self.op

    @property
    def kernel(self) -> str:
        """See ``PackedBase``: float32 does not run on kernels with bfloat16 products."""
        if self._panels():
            return panels_kernel_of(self.dtype)
        return kernel_of(self.runs_on, self.dtype)

    @property
    def remark(self) -> str:
        """See ``PackedBase``."""
        if self.algorithm == "sparse":
            told = packed_sparse(self.zeros)
            return f"{told}, in panels of outputs" if self._panels() else told
        winograd = self.algorithm == "winograd" and self.dtype == torch.float32
        return "packed for Winograd F(2x2, 3x3)" if winograd else ""

    def _panels(self) -> bool:
        """Whether outputs are in lanes, as those of a dense weight."""
        return self.device.type == "cpu" and read_header(self.get()).panels

    def _wanted(self) -> str:
        """See ``PackedBase``: sparse weights go to the kernels of either op."""
        if self.algorithm != "sparse":
            return super()._wanted()
        return f"{backends.layout(SPARSE_OP)} {backends.layout(self.op)}"

    def unpack(self) -> Tensor:
        """The plain weight, a new tensor."""
        if self.device.type == "meta":
            return torch.empty(self.shape, dtype=self.dtype, device="meta")
        out: Tensor = torch.ops.pyops.conv_relu_unpack.default(
            self._data, self.shape, WEIGHT_DTYPES.index(self.dtype)
        )
        return out

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return self.unpack().to(dtype)

    def assign(self, weight: Tensor) -> None:
        """Replaces the weight; every layer that shares this object sees the new one."""
        if weight.dtype not in DTYPES or weight.dim() != 4:
            raise ValueError(
                f"{type(self).__name__}: weight is {weight.dtype} {list(weight.shape)}, expected "
                "float32 or bfloat16 [OC, C / groups, KH, KW]"
            )
        if self.algorithm == "winograd" and not winograd_takes(weight.shape, self.groups):
            raise ValueError(
                f"{type(self).__name__}: Winograd's algorithm takes a weight [OC, C, 3, 3] of 1 "
                f"group, but weight is {list(weight.shape)} of {self.groups}"
            )
        with packed_base.repack_lock:
            self._pack({"weight": weight.detach()})
            self.shape = list(weight.shape)
            self.dtype = weight.dtype
            self.n = weight.shape[0]
            self.k = weight[0].numel() if self.n else 0
            self.zeros = zeros_of(weight) if self.algorithm == "sparse" else 0.0

    def assign_parts(self, parts: Mapping[str, Tensor]) -> None:
        """As ``assign``, in the dtype that it has."""
        weight = parts["weight"]
        self.assign(weight.to(self.dtype) if weight.is_floating_point() else weight)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """See ``PackedBase``; a cast to a dtype that there are kernels for casts the weight."""
        dtype = fn(torch.empty(0, dtype=self.dtype, device=self.device)).dtype
        super().apply_(fn)
        if dtype != self.dtype and dtype in DTYPES:
            self.assign(self.unpack().to(dtype))

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        weight = parts["weight"].contiguous()
        algorithm = self.algorithm
        if algorithm == "winograd" and weight.dtype != torch.float32:
            algorithm = "direct"
        out: Tensor = torch.ops.pyops.conv_relu_pack.default(
            weight, self.groups, ALGORITHMS.index(algorithm)
        )
        return out

    def _layout_of(self, data: Tensor) -> str:
        return read_header(data).layout


class PackedFloatLinear(PackedFloatConv):
    """The same of a Linear: packed as [N, K, 1, 1], and [N, K] to all others."""

    def own_shapes(self) -> dict[str, list[int]]:
        return {"weight": self.shape[:2]}

    def parts(self) -> dict[str, Tensor]:
        return {"weight": self.unpack().flatten(1)}

    def assign(self, weight: Tensor) -> None:
        """See ``PackedFloatConv``; ``weight`` [N, K], or as an image."""
        super().assign(weight[..., None, None] if weight.dim() == 2 else weight)

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        weight = parts["weight"]
        image = weight[..., None, None] if weight.dim() == 2 else weight
        return super()._packed({"weight": image})

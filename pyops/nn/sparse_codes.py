"""int8 weights that may be packed sparse: what the packs of Linears and convolutions share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..ops import sparse_pack, sparse_unpack
from ..ops.int8_sparse_gemm import OP, codes_kernel, codes_layout
from ..ops.int8_sparse_packing import read_sparse_header
from ..ops.sparse_cost import packed_sparse, share_of_dense, zeros_of
from ..ops.sparse_gemm import as_image
from . import packed_base
from .packed_base import Config, PackedBase


class SparseCodes(PackedBase):
    """An int8 weight that ``hold_sparse`` packs by ``pyops.ops.sparse_pack``. All else stays: the
    same integers are computed from it, and files hold the plain weight.
    """

    sparse = False
    groups = 1

    def hold_sparse(self) -> None:
        """Packs the weight sparse from now on, in every layer that shares this object."""
        parts = self.parts()
        with packed_base.repack_lock:
            before, self.sparse = self.sparse, True
            try:
                self._pack(parts)
            except BaseException:
                self.sparse = before
                raise

    def sparse_share(self) -> float:
        """The estimated time of the sparse product / that of the dense one."""
        return share_of_dense(as_image(self.parts()["weight"]), self.groups)

    def zeros(self) -> float:
        """The share of the weight that is 0."""
        return zeros_of(self.parts()["weight"])

    @property
    def runs_on(self) -> str:
        """See ``PackedBase``."""
        return OP if self.sparse else self.op

    @property
    def kernel(self) -> str:
        """See ``PackedBase``."""
        return codes_kernel() if self.sparse else super().kernel

    @property
    def remark(self) -> str:
        """See ``PackedBase``."""
        return packed_sparse(self.zeros()) if self.sparse else ""

    def _wanted(self) -> str:
        return codes_layout() if self.sparse else super()._wanted()

    def _pack_sparse(self, parts: Mapping[str, Tensor]) -> Tensor:
        return sparse_pack(parts["weight"].contiguous(), self.groups)

    @staticmethod
    def _unpack_sparse(data: Tensor, shape: list[int]) -> Tensor:
        return sparse_unpack(data, shape, torch.int8)

    @staticmethod
    def _sparse_layout(data: Tensor) -> str:
        return read_sparse_header(data).layout


def sparse_config(config: Config) -> dict[str, Any]:
    """What ``config`` says beside "sparse".

    Raises:
        ValueError: "sparse" is there and not True.
    """
    if config.get("sparse", True) is not True:
        raise ValueError(f"sparse must be True where it is given, but is {config['sparse']!r}")
    return {name: value for name, value in config.items() if name != "sparse"}

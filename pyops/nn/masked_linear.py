"""``MaskedLinear``: a pruned ``nn.Linear``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.masked_matmul_keep import autocasts, is_plain
from ..ops.masked_matmul_pattern import LEAST_WEIGHTS, SparsePattern
from .masked_module import MaskedModule, masks

KERNELS = ("auto", "dense")


@masks(nn.Linear)
class MaskedLinear(MaskedModule, nn.Linear):
    """``y = x (weight where weight_mask, else 0)^T + bias``; arguments of ``nn.Linear``.

    On a CPU, in float32, output and gradients take sparse kernels (``pyops.ops.masked_matmul``)
    where ``pyops.ops.masked_matmul_plan`` says that they pay; else, and wherever something traces,
    compiles, casts or transforms the layer, products are dense. What is packed is kept from call to
    call, and takes the values of weight and mask in each, however they were changed.

    Attributes:
        kernel: "auto", as above, or "dense": never sparse. Not part of the state.
    """

    # Names of its own, beside those of nn.Linear, which only an instance that needs them has.
    _extra = ("_kernel", "_pattern", "_dense")
    _kernel: str = "auto"
    _pattern: SparsePattern | None = None
    _dense: str | None = None

    @property
    def kernel(self) -> str:
        return self._kernel

    @kernel.setter
    def kernel(self, kernel: str) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"MaskedLinear.kernel is {kernel!r}, expected one of {KERNELS}")
        self._kernel = kernel

    @property
    def remark(self) -> str:
        """What ran the last call; "" before it, and where the weight is too small to choose."""
        if self._dense is not None:
            return f"last run by the dense product: {self._dense}"
        return "" if self._pattern is None else "last run by sparse kernels"

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        dense = self._small() or torch.compiler.is_compiling()
        number = 0 if dense else self._number(input)
        if number == 0:
            return F.linear(input, self.masked_weight(), self.bias)
        op = torch.ops.pyops.masked_matmul.default
        out: Tensor = op(input, self.weight, self.weight_mask, self.bias, number)
        return out

    def _small(self) -> bool:
        # Such a product takes no longer than finding out.
        return self.in_features * self.out_features < LEAST_WEIGHTS

    def _number(self, input: Tensor) -> int:
        """The pattern of a sparse product; 0: it is dense."""
        if self._kernel == "dense":
            self.__dict__["_dense"] = "kernel='dense'"
            return 0
        if not is_plain(input, self.weight, self.weight_mask, self.bias):
            self.__dict__["_dense"] = "something traces or transforms the layer"
            return 0
        pattern = self._pattern
        if pattern is None:
            # Of threads that come here at once, all take that of the first.
            pattern = self.__dict__.setdefault("_pattern", SparsePattern(by_version=False))
        self.__dict__["_dense"] = why = self._why_dense(pattern, input)
        return pattern.number if why is None else 0

    def _why_dense(self, pattern: SparsePattern, input: Tensor) -> str | None:
        weight, mask = self.weight, self.weight_mask
        if autocasts(input):
            return "autocast computes in another type"
        others = [t for t in (weight, mask, self.bias) if t is not None]
        of_weight = [weight.dtype == t.dtype for t in (input, *others) if t is not mask]
        fits = input.dim() > 0 and input.shape[-1] == weight.shape[1] and all(of_weight)
        if not fits or any(t.device != input.device for t in others):
            return "the input does not fit the layer"  # torch says how
        why = pattern.why_dense(input, weight, mask)
        if why is None:
            pattern.look_at(mask)
            why = pattern.why_dense(input, weight, mask)
        return why

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pattern"}

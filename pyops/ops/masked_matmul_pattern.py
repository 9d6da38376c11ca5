"""What a masked product keeps between calls: its mask as the kernels walk it, packed weights."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .. import backends, isa
from .conv_relu_packing import ALGORITHMS

# By number: ops take integers, and none of our objects.
patterns: weakref.WeakValueDictionary[int, SparsePattern] = weakref.WeakValueDictionary()
_of_masks = WeakTensorKeyDictionary()
_numbers = itertools.count(1)


# At these limits a training step with new weights takes about as long sparse as dense, on one
# thread and on two, and less beyond: python bench/run.py masked_matmul --shapes small. What is kept
# is read once in each step, to be packed anew, and by each row: the more of it, the more rows.
# Where a dense product reaches the CPU's peak, which torch's need not, half of the weight takes as
# long.
LEAST_WEIGHTS = 256 * 256
LEAST_ROWS = 32
ROWS_OF_ALL = 256
MOST_SHARE = 0.5
_SPARSE = ALGORITHMS.index("sparse")


def masked_matmul_plan(rows: int, n: int, k: int, kept: int) -> str | None:
    """Why a product with a weight ``[n, k]``, of which ``kept`` are left, runs dense; None: sparse.

    Args:
        rows: of the input, all its dimensions but the last one multiplied.

    Raises:
        ValueError: a number is negative, or ``kept`` is more than ``n * k``.
    """
    weights = n * k
    if min(rows, n, k, kept) < 0 or kept > weights:
        raise ValueError(
            f"masked_matmul_plan: rows, n, k and kept must be at least 0, and kept at most n * k, "
            f"but are {rows}, {n}, {k} and {kept}"
        )
    if not backends.compiled():
        return "nothing is compiled"
    if weights < LEAST_WEIGHTS:
        return f"the weight has {weights} values, sparse pays from {LEAST_WEIGHTS} on"
    share = kept / weights
    if share > MOST_SHARE:
        return f"{share:.0%} of the weight is kept, sparse pays up to {MOST_SHARE:.0%}"
    least = max(LEAST_ROWS, math.ceil(ROWS_OF_ALL * share))
    if rows < least:
        return f"the input has {rows} rows, sparse pays from {least} on with {share:.0%} kept"
    if kept == 0:
        return "the mask keeps nothing"
    return None


class _Seen:
    """A tensor as it was at one time. It is held, so that no other one takes its memory."""

    def __init__(self, tensor: Tensor) -> None:
        self._alias = tensor.detach()
        # Tensors of torch.inference_mode have no version.
        self._version = None if tensor.is_inference() else tensor._version

    def unchanged(self, tensor: Tensor) -> bool:
        old = self._alias
        return (
            self._version is not None
            and not tensor.is_inference()
            and tensor.data_ptr() == old.data_ptr()
            and tensor._version == self._version
            and tensor.shape == old.shape
            and tensor.stride() == old.stride()
        )


@dataclass
class _Packed:
    weight: _Seen
    epoch: int
    bytes: Tensor
    products: int = 0  # that read the bytes now


class SparsePattern:
    """A mask that is packed once, and the packed weights of one layer.

    Give each layer its own to ``masked_matmul(state=)``. The first sparse call packs the mask, for
    the product, for the input's gradient and for the weight's; later ones take the weight's values
    anew if it has changed (memory or version), and pack again if the mask has, or the instruction
    set. What is changed through ``tensor.data`` has no new version: call ``forget()`` then, or give
    the pattern ``by_version=False``.

    A copy, deep or by pickle, begins empty.

    Args:
        by_version: False: each call takes the weight's values anew, and compares the mask's with
            those that are packed, whatever the versions say.

    Attributes:
        reason: why the last call ran dense; None where it ran sparse, and before the first.
    """

    def __init__(self, by_version: bool = True) -> None:
        self.number: int = next(_numbers)
        self.reason: str | None = None
        self.by_version = by_version
        self.lock = threading.RLock()
        self.forget()
        patterns[self.number] = self

    def forget(self) -> None:
        """Drop all that is packed; the next call packs again."""
        with self.lock:
            self._mask: _Seen | None = None
            self._values = torch.empty(0, 0, dtype=torch.bool)  # of the mask
            self._kept = 0
            self._places: Tensor | None = None
            self._weights: dict[bool, _Packed] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> SparsePattern:
        return SparsePattern(self.by_version)

    def __reduce__(self) -> tuple[Callable[[bool], SparsePattern], tuple[bool]]:
        return SparsePattern, (self.by_version,)

    def look_at(self, mask: Tensor) -> None:
        """Drop what is packed of a mask of other values."""
        with self.lock:
            if self._mask is None or not _same(self._values, mask):
                self.forget()
                self._values = mask.detach().clone(memory_format=torch.contiguous_format)
                self._kept = int(self._values.sum())
            self._mask = _Seen(mask)

    def kept(self, mask: Tensor) -> int:
        """How many weights the mask leaves; what is packed of another mask is dropped."""
        with self.lock:
            # Who broadcasts buffers writes, step by step, what is there.
            if self._mask is None or not self._mask.unchanged(mask):
                self.look_at(mask)
            return self._kept

    def why_dense(self, x: Tensor, weight: Tensor, mask: Tensor) -> str | None:
        """Why a product of these runs dense; None where it runs sparse."""
        if not x.is_cpu:
            return f"there are kernels for the CPU, but x is on {x.device}"
        if weight.dtype != torch.float32:
            return f"there are kernels for torch.float32, but weight is {weight.dtype}"
        if mask.is_inference():
            return "the mask is of torch.inference_mode, which does not tell when it changes"
        n, k = weight.shape
        return masked_matmul_plan(x.shape[:-1].numel(), n, k, self.kept(mask))

    def places(self, mask: Tensor) -> Tensor:
        """``masked_pack`` of the mask."""
        with self.lock:
            self.kept(mask)
            if self._places is None:
                self._places = torch.ops.pyops.masked_pack.default(mask)
            return self._places

    @contextmanager
    def weight(self, weight: Tensor, mask: Tensor, transposed: bool) -> Iterator[Tensor]:
        """``sparse_pack`` of the masked weight, or of its transpose, with its present values.

        All that the mask leaves is an entry, also what is 0 now: it may not stay so. The bytes do
        not change within the context, which other threads enter meanwhile.
        """
        with self.lock:
            packed = self._weight(weight, mask, transposed)
            packed.products += 1
        try:
            yield packed.bytes
        finally:
            with self.lock:
                packed.products -= 1

    def _weight(self, weight: Tensor, mask: Tensor, transposed: bool) -> _Packed:
        self.kept(mask)
        packed, epoch = self._weights.pop(transposed, None), isa.epoch()
        if packed is not None and packed.epoch == epoch:
            if self.by_version and packed.weight.unchanged(weight):
                self._weights[transposed] = packed
                return packed
            # What another thread multiplies by stays as it is.
            entries = packed.bytes.clone() if packed.products else packed.bytes
        else:
            entries = _pack(mask.t() if transposed else mask)
        values = weight if transposed else weight[..., None, None]
        torch.ops.pyops.sparse_refresh.default(entries, values, transposed)
        made = self._weights[transposed] = _Packed(_Seen(weight), epoch, entries)
        return made


def _same(values: Tensor, mask: Tensor) -> bool:
    if values.shape != mask.shape or not mask.is_contiguous():
        return torch.equal(values, mask)
    if mask.numel() % 8 or mask.storage_offset() % 8:
        return torch.equal(values, mask)
    # Eight at a time: a tenth of the time.
    return torch.equal(values.view(-1).view(torch.int64), mask.view(-1).view(torch.int64))


def _pack(mask: Tensor) -> Tensor:
    ones = mask.to(torch.float32).contiguous()
    # As convolutions have it: without the form for fewer rows than run sparse.
    packed: Tensor = torch.ops.pyops.conv_relu_pack.default(ones[..., None, None], 1, _SPARSE)
    return packed


def pattern_of(number: int, mask: Tensor) -> SparsePattern:
    """The pattern of that number; 0: one that lives as long as the mask.

    Raises:
        ValueError: there is none.
    """
    found = patterns.get(number)
    if found is not None:
        return found
    if number != 0:
        raise ValueError(f"masked_matmul: pattern is {number}, which no SparsePattern has")
    if mask not in _of_masks:
        _of_masks[mask] = SparsePattern()
    own: SparsePattern = _of_masks[mask]
    return own

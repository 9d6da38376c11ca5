"""PackedWeight: one int8 weight, held once, in the layout that the active kernel wants."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .. import backends, isa
from ..ops import int8_pack, int8_unpack, quantize_weight
from ..ops.packing import read_header

_QUANTIZE_CHUNK = 1 << 18  # elements: keeps the float temporaries of one step to a few MB
_repack_lock = threading.Lock()


def _new_lock_in_child() -> None:
    """A fork may happen while another thread repacks: the child must not inherit a held lock."""
    global _repack_lock
    _repack_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_in_child)


def _refresh_while_tracing(packed: PackedWeight, epoch: int) -> bool:
    """Repacks at trace time, outside the graph; reading ``epoch`` makes the tracer guard on it."""
    packed.refresh()
    return True


# What torch.compiler.assume_constant_result sets; calling that imports all of torch._dynamo, which
# takes longer than the rest of pyops.
_refresh_while_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]


class PackedWeight:
    """Symmetric int8 weight [N, K] with one fp32 scale per output channel, packed for the kernel.

    A plain object and not a buffer, so DDP does not broadcast it and ``.half()`` does not cast it.
    Layers with tied weights share one PackedWeight; ``copy.deepcopy`` and ``pickle`` keep the
    sharing. Pickle stores the plain int8 weight, so a file written under one instruction set is
    packed for whatever is active where it is read. (An exported program is a graph with constants:
    it holds the packed bytes and runs where the same layout is wanted.)

    A kernel refuses another layout, so forcing an instruction set while another thread is inside
    a call can make that call raise; it never computes on the wrong bytes.

    Args:
        weight: int8 [N, K], values in [-127, 127].
        scale: fp32 [N], finite and positive.

    Raises:
        ValueError: on another dtype, another number of dimensions or a value out of range.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self.n, self.k = 0, 0
        self._data: Tensor
        self._layout: str  # what the kernel asked for; it may have packed for another one
        self._epoch: int
        self.assign(weight, scale)

    @classmethod
    def from_float(cls, weight: Tensor) -> PackedWeight:
        """Quantizes a float weight [N, K], a block of rows at a time (bounded temporaries)."""
        n, k = weight.shape
        with torch.inference_mode(False), torch.no_grad():
            values = torch.empty(n, k, dtype=torch.int8, device=weight.device)
            scale = torch.empty(n, dtype=torch.float32, device=weight.device)
            rows = max(1, _QUANTIZE_CHUNK // max(1, k))
            for i in range(0, n, rows):
                values[i : i + rows], scale[i : i + rows] = quantize_weight(weight[i : i + rows])
        return cls(values, scale)

    @property
    def device(self) -> torch.device:
        return self._data.device

    @property
    def layout(self) -> str:
        """Tag of the layout of the packed bytes that a call would use now."""
        return "meta" if self.device.type == "meta" else read_header(self.get()).layout

    @property
    def nbytes(self) -> int:
        """Bytes held: the packed weight (column sums included) and the scales."""
        return self._data.untyped_storage().nbytes() + self.scale.untyped_storage().nbytes()

    def get(self) -> Tensor:
        """The packed weight (1-D uint8) for the kernel that runs now; repacks after a change."""
        if torch.compiler.is_compiling():
            _refresh_while_tracing(self, isa.epoch())
        elif self._epoch != isa.epoch():
            self.refresh()
        return self._data

    def refresh(self) -> None:
        """Repacks if the choice of kernels has changed and the new one wants another layout."""
        with _repack_lock, _disable_current_modes():
            epoch = isa.epoch()
            if self._epoch == epoch:
                return
            if self.device.type != "cpu" or self._layout == backends.layout("int8_gemm"):
                self._epoch = epoch
            else:
                self._pack(self.unpack())

    def unpack(self) -> Tensor:
        """The plain int8 weight [N, K], a new tensor."""
        if self.device.type == "meta":
            return torch.empty(self.n, self.k, dtype=torch.int8, device="meta")
        return int8_unpack(self._data, self.n, self.k)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight as floats [N, K], a new tensor."""
        return (self.unpack().to(torch.float32) * self.scale[:, None]).to(dtype)

    def assign(self, weight: Tensor, scale: Tensor) -> None:
        """Replaces the weight; every layer that shares this object sees the new one."""
        _check(weight, scale)
        with _repack_lock:
            self.n, self.k = weight.shape
            # A copy: a row view would keep the tensor that it was cut from alive.
            with torch.inference_mode(False), torch.no_grad():
                self.scale = scale.detach().clone()
            self._pack(weight.detach())

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to a parameter, except that no dtype ever changes."""
        before = self.device.type
        data, scale = keep_dtype(fn, self._data), keep_dtype(fn, self.scale)
        if data.device.type == before or data.device.type == "meta":
            with _repack_lock:
                self._data, self.scale = data, scale
        elif before == "meta":  # to_empty(): storage with no contents
            zeros = torch.zeros(self.n, self.k, dtype=torch.int8, device=data.device)
            self.assign(zeros, torch.ones(self.n, device=data.device))
        else:  # the kernels of another device want another layout
            self.assign(self.unpack().to(data.device), scale)

    def _pack(self, weight: Tensor) -> None:
        if weight.device.type == "meta":  # a stand-in: no kernel, so no layout and no size
            self._data = torch.empty(0, dtype=torch.uint8, device="meta")
            self._layout, self._epoch = "meta", isa.epoch()
            return
        with torch.inference_mode(False), torch.no_grad():
            while True:
                epoch = isa.epoch()
                layout = backends.layout("int8_gemm") if weight.device.type == "cpu" else "plain"
                data = int8_pack(weight.contiguous())
                if isa.epoch() == epoch:  # else the kernel changed while packing: tag unknown
                    break
        self._data, self._layout = data, layout
        self._epoch = epoch  # last: a reader that sees the new epoch sees the new data

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedWeight:
        new = object.__new__(type(self))
        with _repack_lock:
            new.__dict__.update(self.__dict__)
            new._data, new.scale = self._data.clone(), self.scale.clone()
        memo[id(self)] = new
        return new

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        weight = self.unpack()
        # torch.save pickles with protocol 2 and stores tensors beside the pickle, bytes inside it
        # as text. multiprocessing passes a tensor as a file descriptor, which would be closed with
        # this temporary one before the new process starts: bytes there.
        if int(protocol) < 4 or weight.device.type == "meta":
            return type(self), (weight, self.scale)
        return _from_bytes, (weight.cpu().numpy().tobytes(), self.k, self.scale)

    def __repr__(self) -> str:
        return f"PackedWeight(n={self.n}, k={self.k}, layout={self.layout}, {self.device})"


def _from_bytes(data: bytes, k: int, scale: Tensor) -> PackedWeight:
    shape = (scale.shape[0], k)
    empty = torch.empty(shape, dtype=torch.int8)
    weight = torch.frombuffer(bytearray(data), dtype=torch.int8).reshape(shape) if data else empty
    return PackedWeight(weight.to(scale.device), scale)


def keep_dtype(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """``fn(tensor)`` for a function that may cast as well as move: moved, with the same bits."""
    # Casts like .half() skip integers, so fn sees the bits as integers; .type() casts even those.
    bits = tensor.view(torch.int32) if tensor.is_floating_point() else tensor
    moved = fn(bits)
    if moved is bits:
        return tensor
    return moved.view(tensor.dtype) if moved.dtype == bits.dtype else tensor.to(moved.device)


def _check(weight: Tensor, scale: Tensor) -> None:
    if weight.dtype != torch.int8 or weight.dim() != 2:
        raise ValueError(
            f"PackedWeight: weight is {weight.dtype} {list(weight.shape)}, expected int8 [N, K]"
        )
    if scale.dtype != torch.float32 or list(scale.shape) != [weight.shape[0]]:
        raise ValueError(
            f"PackedWeight: scale is {scale.dtype} {list(scale.shape)}, "
            f"expected float32 [{weight.shape[0]}]"
        )
    if weight.device.type == "meta" or weight.numel() == 0:
        return
    if int(weight.min()) < -127:
        raise ValueError("PackedWeight: weight holds -128, expected values in [-127, 127]")
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError("PackedWeight: scale holds a value that is not finite and positive")

"""What every packed weight shares: packed for the active kernel, repacked after a change of it."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .. import backends, isa

if TYPE_CHECKING:
    from typing_extensions import Self

repack_lock = threading.Lock()
Config = Mapping[str, Any]


def _new_lock_in_child() -> None:
    """A fork may happen while another thread repacks: the child must not inherit a held lock."""
    global repack_lock
    repack_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_in_child)


_numbers = itertools.count()
_by_key: weakref.WeakValueDictionary[str, PackedBase] = weakref.WeakValueDictionary()


def by_key(key: str) -> PackedBase:
    """The packed weight that has this key, while it lives."""
    return _by_key[key]


def _refresh_while_tracing(key: str, epoch: int) -> bool:
    """Repacks at trace time, outside the graph; reading ``epoch`` makes the tracer guard on it.

    By key: the tracer of torch 2.11 takes constants alone.
    """
    _by_key[key].refresh()
    return True


# What torch.compiler.assume_constant_result sets; calling that imports all of torch._dynamo, which
# takes longer than the rest of pyops.
_refresh_while_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]


class PackedBase:
    """A weight [N, K], packed for the kernel that runs now, and what it needs beside it.

    A plain object and not a buffer, so DDP does not broadcast it and ``.half()`` does not cast it.
    Layers with tied weights share one; ``copy.deepcopy`` and ``pickle`` keep the sharing. Pickle
    stores plain tensors, so a file written under one instruction set is packed for whatever is
    active where it is read. (An exported program is a graph with constants: it holds the packed
    bytes and runs where the same layout is wanted.)

    A kernel refuses another layout, so forcing an instruction set while another thread is inside
    a call can make that call raise; it never computes on the wrong bytes.

    A subclass names its ``op`` and says what its plain tensors are: ``parts`` and ``from_parts``
    (by their names in a ``state_dict``, of ``shapes``), and how they are packed: ``_packed``.
    Tensors that stay beside the packed bytes are ``beside``.
    """

    op: ClassVar[str]  # whose kernels read the bytes
    packs_for: ClassVar[str] = ""  # whose kernel decides the layout, where that is another op
    n: int
    k: int
    _data: Tensor
    _layout: str  # what the kernel asked for; it may have packed for another one
    _epoch: int
    _key: str  # of this object and no other
    beside: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        new = super().__new__(cls)
        new._key = str(next(_numbers))
        _by_key[new._key] = new
        return new

    @classmethod
    def from_float(cls, weight: Tensor, **options: Any) -> Self:
        """Quantizes a float weight [N, K]."""
        raise NotImplementedError

    def parts(self) -> dict[str, Tensor]:
        """The plain tensors, by their names in a ``state_dict``."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """What the plain tensors leave open, as JSON: keywords of ``shapes`` and ``from_parts``."""
        return {}

    @classmethod
    def shapes(cls, n: int, k: int, config: Config) -> dict[str, list[int]]:
        """The shapes of ``parts``.

        Raises:
            ValueError: ``config`` is not one of this class.
        """
        raise NotImplementedError

    def own_shapes(self) -> dict[str, list[int]]:
        """The shapes of its own ``parts``."""
        return self.shapes(self.n, self.k, self.config())

    @classmethod
    def from_parts(cls, parts: Mapping[str, Tensor], k: int, config: Config) -> Self:
        """The inverse of ``parts``.

        Raises:
            ValueError: a tensor has another dtype, shape or value than a packed weight holds.
        """
        raise NotImplementedError

    def assign_parts(self, parts: Mapping[str, Tensor]) -> None:
        """Replaces the weight; every layer that shares this object sees the new one."""
        raise NotImplementedError

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight as floats [N, K], a new tensor."""
        raise NotImplementedError

    def _packed(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The packed bytes for the kernel that runs now."""
        raise NotImplementedError

    def _layout_of(self, data: Tensor) -> str:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self._data.device

    @property
    def layout(self) -> str:
        """Tag of the layout of the packed bytes that a call would use now."""
        return "meta" if self.device.type == "meta" else self._layout_of(self.get())

    @property
    def runs_on(self) -> str:
        """The op whose kernels run on the packed bytes."""
        return self.op

    @property
    def kernel(self) -> str:
        """The implementation that runs now on this weight, if it is on the CPU."""
        return backends.kernel(self.runs_on, self.layout)

    @property
    def remark(self) -> str:
        """What ``explain`` says of how it is multiplied, where there is a choice; else ""."""
        return ""

    @property
    def nbytes(self) -> int:
        """Bytes held: the packed weight and what is beside it."""
        held = [self._data, *(getattr(self, name) for name in self.beside)]
        return sum(tensor.untyped_storage().nbytes() for tensor in held)

    def get(self) -> Tensor:
        """The packed weight (1-D uint8) for the kernel that runs now; repacks after a change."""
        if torch.compiler.is_compiling():
            _refresh_while_tracing(self._key, isa.epoch())
        elif self._epoch != isa.epoch():
            self.refresh()
        return self._data

    def _wanted(self) -> str:
        """The layout that the kernel running now asks for."""
        return backends.layout(self.packs_for or self.runs_on)

    def refresh(self) -> None:
        """Repacks if the choice of kernels has changed and the new one wants another layout."""
        with repack_lock, _disable_current_modes():
            epoch = isa.epoch()
            if self._epoch == epoch:
                return
            if self.device.type != "cpu" or self._layout == self._wanted():
                self._epoch = epoch
            else:
                self._pack(self.parts())

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to a parameter, except that no dtype ever changes."""
        before = self.device.type
        data = keep_dtype(fn, self._data)
        beside = {name: keep_dtype(fn, getattr(self, name)) for name in self.beside}
        if data.device.type == before or data.device.type == "meta":
            with repack_lock:
                self._data = data
                self.__dict__.update(beside)
        elif before == "meta":  # to_empty(): storage with no contents
            self.assign_parts(self._blank(data.device))
        else:  # the kernels of another device want another layout
            parts = {name: part.to(data.device) for name, part in self.parts().items()}
            self.assign_parts(parts)

    def _blank(self, device: torch.device) -> dict[str, Tensor]:
        """Valid plain tensors for a weight without contents."""
        return {
            name: (torch.ones if part.is_floating_point() else torch.zeros)(
                part.shape, dtype=part.dtype, device=device
            )
            for name, part in self.parts().items()
        }

    def _pack(self, parts: Mapping[str, Tensor]) -> None:
        weight = parts["weight"]
        if weight.device.type == "meta":  # a stand-in: no kernel, so no layout and no size
            self._data = torch.empty(0, dtype=torch.uint8, device="meta")
            self._layout, self._epoch = "meta", isa.epoch()
            return
        with torch.inference_mode(False), torch.no_grad():
            while True:
                epoch = isa.epoch()
                layout = self._wanted() if weight.device.type == "cpu" else "plain"
                data = self._packed(parts)
                if isa.epoch() == epoch:  # else the kernel changed while packing: tag unknown
                    break
        self._data, self._layout = data, layout
        self._epoch = epoch  # last: a reader that sees the new epoch sees the new data

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        cls = type(self)
        new = cls.__new__(cls)
        with repack_lock:
            new.__dict__.update(self.__dict__ | {"_key": new._key})
            for name in ("_data", *self.beside):
                setattr(new, name, getattr(self, name).clone())
        memo[id(self)] = new
        return new

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        parts, config = self.parts(), self.config()
        # torch.save pickles with protocol 2 and stores tensors beside the pickle, bytes inside it
        # as text. multiprocessing passes a tensor as a file descriptor, which would be closed with
        # this temporary one before the new process starts: bytes there.
        if int(protocol) < 4 or self.device.type == "meta":
            return _from_parts, (type(self), parts, self.k, config)
        raw = {
            name: (_bytes_of(part), part.dtype, list(part.shape)) for name, part in parts.items()
        }
        return _from_bytes, (type(self), raw, str(self.device), self.k, config)

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(n={self.n}, k={self.k}, layout={self.layout}, {self.device})"


def _from_parts(
    cls: type[PackedBase], parts: dict[str, Tensor], k: int, config: Config
) -> PackedBase:
    return cls.from_parts(parts, k, config)


def _from_bytes(
    cls: type[PackedBase],
    raw: dict[str, tuple[bytes, torch.dtype, list[int]]],
    device: str,
    k: int,
    config: Config,
) -> PackedBase:
    parts = {}
    for name, (data, dtype, shape) in raw.items():
        empty = torch.empty(shape, dtype=dtype)
        part = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape) if data else empty
        parts[name] = part.to(device)
    return cls.from_parts(parts, k, config)


def _bytes_of(tensor: Tensor) -> bytes:
    """NumPy has no bfloat16."""
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def keep_dtype(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """``fn(tensor)`` for a function that may cast as well as move: moved, with the same bits."""
    # Casts like .half() skip integers, so fn sees the bits as integers; .type() casts even those.
    bits = tensor.view(torch.int32) if tensor.is_floating_point() else tensor
    moved = fn(bits)
    if moved is bits:
        return tensor
    return moved.view(tensor.dtype) if moved.dtype == bits.dtype else tensor.to(moved.device)

"""What a captured model's result depends on beside its inputs: recorded while it is captured.

``Recorder`` notes every attribute that the forward reads from a module. ``Watch`` compares those
with what they were, and the tree of modules, their hooks, and the types of their tensors. It does
not look into functions: one that reads a global which then changes is out of reach.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter, getitem
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from ..nn.packed_module import PackedModule
from .guards import SIMPLE, Guard, runs_own_forward
from .simple_code import DROPOUTS, CannotTraceError

# torch's own slots: what they hold is compared as a whole.
_SLOTS = set(vars(nn.Module())) - {"training"}
_SLOTS_OF_TENSORS = ("_parameters", "_buffers")
_DEPTH = 4  # of objects in objects whose attributes are compared
Reads = dict[int, set[str]]  # by the id of a module


@contextmanager
def recording(model: nn.Module) -> Iterator[Reads]:
    """Yields the names that this thread reads from the modules of ``model``, as they are read.

    Raises:
        CannotTraceError: a class has its own way to look up attributes; or later, in the block: it
            reads ``__dict__`` or sets an attribute.
    """
    reads: Reads = {id(module): set() for module in model.modules()}
    for module in model.modules():
        cls = type(module)
        if (
            cls.__getattribute__ is not nn.Module.__getattribute__
            or cls.__getattr__ is not nn.Module.__getattr__
        ):
            raise CannotTraceError(f"{cls.__name__} has its own way to look up attributes")
    thread = threading.get_ident()
    original = nn.Module.__getattribute__

    def read(self: nn.Module, name: str) -> Any:
        if threading.get_ident() == thread:
            names = reads.get(id(self))
            if names is not None:
                reader = sys._getframe(1).f_globals.get("__name__", "")
                if name != "__dict__":
                    names.add(name)
                elif not reader.startswith(("torch.", "pyops.")):
                    raise CannotTraceError(f"it reads the __dict__ of a {type(self).__name__}")
        return original(self, name)

    def write(self: nn.Module, name: str, value: Any) -> None:
        if threading.get_ident() == thread and id(self) in reads:
            writer = sys._getframe(1).f_globals.get("__name__", "")
            if not writer.startswith("torch."):  # torch.export would set it back
                raise CannotTraceError(f"it sets {name} of a {type(self).__name__} as it runs")
        set_original(self, name, value)

    set_original = nn.Module.__setattr__
    nn.Module.__getattribute__ = read  # type: ignore[method-assign, assignment]
    nn.Module.__setattr__ = write  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        del nn.Module.__getattribute__
        nn.Module.__setattr__ = set_original  # type: ignore[method-assign]


class Watch:
    """The state of a model's parts, taken when it is made; ``changed`` compares.

    ``reads``: the attributes that matter, by module; without it, all of them. Copies and pickles
    watch the copy. A parameter may be replaced by one that is like it, unless it is tied.
    """

    def __init__(self, model: nn.Module, reads: Reads | None = None) -> None:
        self.modules = list(model.modules())
        self.cls = type(model)
        self.children = [dict(module._modules) for module in self.modules]
        self.values: list[tuple[nn.Module, str, Any]] = []
        self.holders: list[tuple[Any, dict[str, Any]]] = []
        self.classes: list[Guard] = []
        seen: set[Any] = set()
        for module in self.modules:
            names = set(vars(module)) if reads is None else reads.get(id(module), set())
            if type(module) in DROPOUTS:
                names = names & {"training", "forward"}  # in eval mode, nothing else matters
            for name in sorted(names - _SLOTS):
                self._take(module, name, seen)
        self.slots = [
            (m, slot) for m in self.modules for slot in _SLOTS_OF_TENSORS if _own(m, slot)
        ]
        self.tensors = [dict(m.__dict__[slot]) for m, slot in self.slots]
        self.likes = [[_like(t) for t in were.values()] for were in self.tensors]
        self._bound: _Bound | None = None

    def _take(self, module: nn.Module, name: str, seen: set[Any]) -> None:
        if name in module.__dict__:
            value = module.__dict__[name]
            if name != "forward" or not getattr(value, "is_graph", False):
                self.values.append((module, name, _frozen(value)))
                self._hold(value, 0, seen)
            return
        for cls in type(module).__mro__:
            if name in vars(cls):
                value = vars(cls)[name]
                known = cls in (nn.Module, object) or (cls, name) in seen
                if not known and isinstance(value, (FunctionType, *SIMPLE)):
                    self.classes.append(Guard(cls, "__dict__", name, value))
                    seen.add((cls, name))
                return

    def _hold(self, value: Any, depth: int, seen: set[Any]) -> None:
        """Objects that may change in place, such as a config."""
        atomic = isinstance(value, (*SIMPLE, Tensor, nn.Module, type, FunctionType, ModuleType))
        if atomic or depth > _DEPTH or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, (dict, list, tuple, set)):
            items = value.values() if isinstance(value, dict) else value
        else:
            items = getattr(value, "__dict__", {}).values()
            self.holders.append((value, _frozen(getattr(value, "__dict__", {}))))
        for item in items:
            self._hold(item, depth + 1, seen)

    def changed(self) -> str | None:
        """What has changed; None if nothing has."""
        bound = self._bound
        if bound is None:
            bound = self._bound = _Bound(self)
        try:
            return bound.changed(self)
        except Exception:  # a name is gone, or a value cannot be compared with what it was
            return "an attribute that its forward reads was exchanged"

    def requires_grad(self) -> bool:
        """Whether a parameter does."""
        tensors = (t for module, slot in self.slots for t in module.__dict__[slot].values())
        return any(t is not None and t.requires_grad for t in tensors)

    def alike(self) -> bool:
        """Whether parameters and buffers are those that were there, or others like them."""
        shared = Counter(id(t) for were in self.tensors for t in were.values())
        for (module, slot), were, likes in zip(self.slots, self.tensors, self.likes, strict=True):
            now = module.__dict__[slot]
            if list(now) != list(were) or [_like(t) for t in now.values()] != likes:
                return False
            if any(
                now[n] is not t and t is not None and shared[id(t)] > 1 for n, t in were.items()
            ):
                return False
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": None}


class _Bound:
    """A Watch as flat lists, which are compared in one go: it runs at every call."""

    def __init__(self, watch: Watch) -> None:
        self.dicts = [module.__dict__ for module in watch.modules]
        self.sizes: list[int] = []  # none compared yet
        parts = watch.modules[1:]  # the root's own hooks run around its forward
        hooks = ((part._forward_hooks, part._forward_pre_hooks) for part in parts)
        self.hooks = list(chain.from_iterable(hooks))
        full = [(m._modules, was) for m, was in zip(watch.modules, watch.children, strict=True)]
        full = [(now, was) for now, was in full if now or was]
        self.children, self.children_were = [n for n, _ in full], [w for _, w in full]
        self.read_from = [module.__dict__ for module, _, _ in watch.values]
        self.names = [name for _, name, _ in watch.values]
        self.values = [value for _, _, value in watch.values]
        self.holders = [vars(value) for value, _ in watch.holders if hasattr(value, "__dict__")]
        self.holders_were = [was for value, was in watch.holders if hasattr(value, "__dict__")]
        self.classes = [(vars(guard.holder).get, guard.name) for guard in watch.classes]
        self.class_values = [guard.value for guard in watch.classes]
        self.slots = [module.__dict__[slot] for module, slot in watch.slots]
        tensors = [t for were in watch.tensors for t in were.values()]
        self.slots_were = watch.tensors
        likes = [like for likes in watch.likes for like in likes]
        real = [(t, like) for t, like in zip(tensors, likes, strict=True) if t is not None]
        self.real = [t for t, _ in real]
        self.dtypes = [like[0] for _, like in real]
        # A vector of another length cannot pass for this one unnoticed: norms and sums name it.
        self.large = [t for t, like in real if len(like[1]) > 1]
        self.shapes = [like[1] for _, like in real if len(like[1]) > 1]

    def changed(self, watch: Watch) -> str | None:
        if any(self.hooks):
            return "a part has a forward hook"
        if self.children != self.children_were or type(watch.modules[0]) is not watch.cls:
            return "a part was exchanged"
        sizes = list(map(len, self.dicts))
        if sizes != self.sizes:  # an attribute came or went: a forward, perhaps
            if not all(runs_own_forward(module) for module in watch.modules[1:]):
                return "the forward of a part was replaced"
            self.sizes = sizes
        if list(map(getitem, self.read_from, self.names)) != self.values:
            return "an attribute that its forward reads has another value"
        if self.holders != self.holders_were:
            return "its config or another object that its forward reads has changed"
        if [get(name) for get, name in self.classes] != self.class_values:
            return "a method of a class was replaced"
        if not self._same_tensors() and not watch.alike():
            return "a parameter or buffer has another type or shape, or is tied no more"
        return None

    def _same_tensors(self) -> bool:
        try:
            same = self.slots == self.slots_were  # one by one: first whether the two are one object
        except RuntimeError:  # they are not, and a tensor is neither true nor false
            return False
        same = same and list(map(_dtype, self.real)) == self.dtypes
        return same and [t.shape for t in self.large] == self.shapes


_dtype = attrgetter("dtype")


def _like(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.dtype, tensor.shape)


def _own(module: nn.Module, slot: str) -> bool:
    """An int8 layer's own tensors are read by its own code."""
    filled = any(t is not None for t in module.__dict__[slot].values())
    return filled and not isinstance(module, PackedModule)


def _frozen(value: Any) -> Any:
    """The value; of containers a copy, so that a change in place shows."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        make: Callable[[Any], Any] = type(value)
        return make(_frozen(item) for item in value)
    return value

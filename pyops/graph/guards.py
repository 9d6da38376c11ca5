"""What a traced method's result depends on beside its tensors, compared at every later call."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from operator import contains, is_, itemgetter
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from .seen import Seen

SIMPLE = (bool, int, float, str, type(None), torch.dtype)


class Expect(Enum):
    """What a Guard compares with where it is not the value: singletons, copied or pickled."""

    NOTHING = 0  # there is no such name
    TENSOR = 1  # whichever, but not None


@dataclass(frozen=True)
class Guard:
    """``holder``'s ``slot`` has ``value`` under ``name``.

    ``slot``: "__dict__" of a module or class, "_modules", "_parameters" or "_buffers" of a module,
    "__globals__" of a function; "number of parts" of a module has no names.
    """

    holder: Any
    slot: str
    name: str
    value: Any

    def holds(self) -> bool:
        """Whether it is so still; a part must also be in eval mode, without hooks, unpatched."""
        now = self._now()
        if self.value is Expect.TENSOR:
            return isinstance(now, Tensor)
        if isinstance(now, nn.Module):
            watched = now._forward_hooks or now._forward_pre_hooks or now.training
            return now is self.value and not watched and runs_own_forward(now)
        if now is self.value:
            return True
        simple = isinstance(now, SIMPLE) or _is_shape(now)
        return simple and type(now) is type(self.value) and now == self.value

    def _now(self) -> Any:
        if self.slot == "number of parts":
            return len(self.holder._modules)
        own = self.slot in ("__dict__", "__globals__")
        mapping = getattr(self.holder, self.slot) if own else self.holder.__dict__[self.slot]
        return mapping.get(self.name, Expect.NOTHING)

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        value = self.value if _code_of(self.value) else copy.deepcopy(self.value, memo)
        return Guard(copy.deepcopy(self.holder, memo), self.slot, self.name, value)

    def __getstate__(self) -> tuple[Any, ...]:
        """A function goes by its code: another process may have another one under its name."""
        code = _code_of(self.value)
        value = self.value if code is None else None
        return self.holder, self.slot, self.name, value, _digest(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, one in zip(("holder", "slot", "name", "value"), state, strict=False):
            object.__setattr__(self, name, one)
        digest = state[-1]
        if digest is not None:
            now = self._now()
            same = _digest(_code_of(now)) == digest
            object.__setattr__(self, "value", now if same else object())  # which never holds


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(size) is int for size in value)


class Watch:
    """All of several guards at once, which costs a tenth of calling each; where nothing was
    exchanged since they last held, by one comparison of all that they look at.
    """

    _MOST_SIGHTINGS = 8  # something is exchanged all the time: to note it anew does not pay

    def __init__(self, guards: list[Guard]) -> None:
        self._guards = guards
        self._seen: Seen | None = None
        self._sightings = 0
        parts = [guard for guard in guards if isinstance(guard.value, nn.Module)]
        self._slots = [_Slot.of(slot, parts) for slot in sorted({guard.slot for guard in parts})]
        others = [guard for guard in guards if not isinstance(guard.value, nn.Module)]
        own = [guard for guard in others if guard.slot in ("__dict__", "__globals__")]
        self._own = [(getattr(g.holder, g.slot), g.name, g.value, g) for g in own]
        self._of_classes = [one for one in self._own if not isinstance(one[0], dict)]
        self._rest = [guard for guard in others if guard not in own]

    def holds(self) -> bool:
        """Whether each guard does."""
        seen = self._seen
        if seen is not None and seen.same():
            return all(
                mapping.get(name, Expect.NOTHING) is value or guard.holds()
                for mapping, name, value, guard in self._of_classes
            )
        self._seen = seen = None
        if self._sightings < self._MOST_SIGHTINGS:
            self._sightings += 1
            seen = _sight(self._guards)  # first: another thread may exchange something now
        if not self._each_holds():
            return False
        self._seen = seen
        return True

    def _each_holds(self) -> bool:
        for slot in self._slots:
            if not slot.holds():
                return False
        for mapping, name, value, guard in self._own:
            if mapping.get(name, Expect.NOTHING) is not value and not guard.holds():
                return False
        return all(guard.holds() for guard in self._rest)


def _sight(guards: list[Guard]) -> Seen:
    """All that the guards look at; they hold as long as it is the same."""
    seen = Seen()
    for guard in guards:
        own = guard.slot in ("__dict__", "__globals__")
        if guard.slot == "number of parts":
            seen.note_size(seen.note(guard.holder.__dict__, "_modules"))
            continue
        holder = guard.holder
        mapping = getattr(holder, guard.slot) if own else seen.note(holder.__dict__, guard.slot)
        if not isinstance(mapping, dict):
            continue  # of a class: not among those that are noted
        part = seen.note(mapping, guard.name)
        if isinstance(part, nn.Module):
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                seen.note_size(seen.note(part.__dict__, name))
            seen.note(part.__dict__, "training")
            seen.note(part.__dict__, "forward")
    return seen


_HOOKS = itemgetter("_forward_hooks")
_PRE_HOOKS = itemgetter("_forward_pre_hooks")
_TRAINING = itemgetter("training")


@dataclass(frozen=True)
class _Slot:
    """The modules that stand under names in one kind of slot, each list as long as the others.

    A call looks at hundreds of them: loops that run inside ``map`` take a third of the time.
    """

    name: str
    holders: list[dict[str, Any]]
    names: list[str]
    parts: list[nn.Module]
    states: list[dict[str, Any]]

    @classmethod
    def of(cls, slot: str, guards: list[Guard]) -> _Slot:
        own = [guard for guard in guards if guard.slot == slot]
        holders, parts = [g.holder.__dict__ for g in own], [g.value for g in own]
        return cls(slot, holders, [g.name for g in own], parts, [p.__dict__ for p in parts])

    def holds(self) -> bool:
        """Whether each is there, in eval mode, without hooks, and runs its own forward."""
        mappings = map(itemgetter(self.name), self.holders)
        if not all(map(is_, map(dict.get, mappings, self.names), self.parts)):
            return False
        states = self.states
        if any(map(_HOOKS, states)) or any(map(_PRE_HOOKS, states)) or any(map(_TRAINING, states)):
            return False
        if True in map(contains, states, repeat("forward")):
            return all(map(runs_own_forward, self.parts))
        return True


def _code_of(value: Any) -> CodeType | None:
    function = value.__func__ if isinstance(value, staticmethod) else value
    return function.__code__ if isinstance(function, FunctionType) else None


def _digest(code: CodeType | None) -> str | None:
    if code is None:
        return None
    constants = [_digest(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    parts = (code.co_code, code.co_names, code.co_varnames, constants)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def runs_own_forward(module: nn.Module) -> bool:
    """Its class's, or a graph of it."""
    forward = module.__dict__.get("forward")
    return forward is None or getattr(forward, "is_graph", False)

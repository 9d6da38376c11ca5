"""A run of steps in one call: what a node of a joined graph calls (``net_join.py``).

The program is fixed; weights, scales and biases are looked up in the layers at every call, with no
more Python than it takes to see that they are those of the call before.

Scale folding: a layer that makes uint8 and whose activation is none, ReLU, clamp or leaky ReLU,
which positive factors pass through, is called with ``scale_x * scale_w / out_scale`` as its weight
scale, ``bias / out_scale``, ``residual_scale / out_scale``, bounds over ``out_scale``, and 1 as the
scales of input and output: the epilogue has less to multiply. The products are made in float64 and
rounded once, so a result may differ by one code from that of the layer alone, where it lies next to
a tie. A layer whose scale would not be a normal float32 is called as it is.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .. import isa
from ..nn import packed_base
from ..ops import NetProgram, PreparedNet
from .seen import Seen

_VERSION = attrgetter("_version")
_TINY, _HUGE = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Layer:
    """A layer that a program calls. ``numbers``: where its numbers begin in the program's.

    ``slope``: which argument of the call it takes as its slope, or -1. ``folded``: its numbers with
    the scales folded; None where that cannot be. ``ratio``: input scale / output scale.
    """

    path: str
    numbers: int
    bias: bool
    slope: int
    folded: tuple[float, ...] | None
    ratio: float
    out_scale: float


def _scale_of(packed: Any) -> Any:
    """The scale of an int8 weight; None of a float one."""
    return getattr(packed, "scale", None)


def foldable(scale_w: Tensor, ratio: float) -> bool:
    """Whether every ``scale_w * ratio`` is a normal float32."""
    if scale_w.device.type == "meta" or scale_w.numel() == 0:
        return False
    low, high = (float(one) * ratio for one in torch.aminmax(scale_w))
    return low >= _TINY and high <= _HUGE


def fold(scale_w: Tensor, bias: Tensor | None, layer: Layer) -> list[Tensor]:
    """Scale and bias, if there is one, with the scales folded."""
    scale = (scale_w.double() * layer.ratio).to(torch.float32)
    return [scale] if bias is None else [scale, (bias.double() / layer.out_scale).to(torch.float32)]


def _folds_while_tracing(key: str, ratio: float) -> bool:
    """Decided at trace time; by key, as ``packed_base`` does."""
    packed: Any = packed_base.by_key(key)
    with _disable_current_modes():
        return foldable(packed.scale, ratio)


_folds_while_tracing._dynamo_marked_constant = True  # type: ignore[attr-defined]


@dataclass
class _Taken:
    """What a call hands over, all of one moment, and what it was made of.

    ``kept``: it will be there at the next call, and may be prepared.
    """

    epoch: int
    seen: list[tuple[Any, ...]]
    parts: list[list[Tensor]]
    numbers: list[float]
    tensors: list[Tensor] = field(default_factory=list)  # without slopes
    kept: bool = False
    net: PreparedNet | None = None
    sighted: Seen | None = None  # what ``seen`` was read from
    # Tensors whose values were copied: in place, they may change without being exchanged.
    copied: list[Tensor] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def sight(self, states: list[dict[str, Any]]) -> None:
        """Notes all that has to be the same at the next call, where each layer can tell."""
        sighted = Seen()
        for state, seen, part in zip(states, self.seen, self.parts, strict=True):
            own = sighted.note(state, "packed").__dict__
            data, scale = sighted.note(own, "_data"), sighted.note(own, "scale")
            bias = sighted.note(sighted.note(state, "_buffers"), "bias")
            now = (data, scale, bias)
            if not seen or any(a is not b for a, b in zip(now, seen, strict=False)):
                return
            folded = scale is not None and part[1] is not scale
            for i in (1, 2):
                # Kernels take a copy of one that is not contiguous.
                if seen[i] is not None and (folded or not seen[i].is_contiguous()):
                    self.copied.append(seen[i])
                    self.versions.append(seen[i + 3])
        self.sighted = sighted

    def holds(self) -> bool:
        """Whether every layer still has what was taken."""
        same = self.sighted is not None and self.sighted.same()
        return same and list(map(_VERSION, self.copied)) == self.versions

    def prepared(self, program: NetProgram) -> PreparedNet:
        """The program with all this; two threads may both make it at first."""
        if self.net is None:
            self.net = PreparedNet(program, self.tensors, self.numbers)
        return self.net


class _Bound:
    """The layers of one owner, and the tensors and numbers that were last taken from them."""

    def __init__(self, run: NetRun, owner: nn.Module) -> None:
        self.run = run
        # A graph runs only while its modules are those that it was made with (guards.py).
        self.states = [owner.get_submodule(layer.path).__dict__ for layer in run.layers]
        none = [() for _ in self.states]
        self.last = _Taken(-1, list(none), [[] for _ in none], list(run.program.numbers))

    def take(self) -> _Taken:
        """For a call now: what was taken last, where every layer still has it."""
        epoch, last = isa.epoch(), self.last
        if last.epoch != epoch:  # other kernels may run, on the same weights too
            return self._taken_anew(last, epoch, range(len(self.states)))
        if last.holds():
            return last
        pairs = enumerate(zip(self.states, last.seen, strict=True))
        return self._taken_anew(last, epoch, [i for i, (s, seen) in pairs if _changed(s, seen)])

    def _taken_anew(self, last: _Taken, epoch: int, changed: Iterable[int]) -> _Taken:
        """Published at once, whole: other threads may be in a call."""
        new = _Taken(epoch, list(last.seen), list(last.parts), list(last.numbers))
        with _disable_current_modes():  # what is kept serves later calls too
            for i in changed:
                self._layer(i, new)
        new.tensors.extend(tensor for part in new.parts for tensor in part)
        new.kept = bool(new.tensors) and all(new.seen) and not self.run.has_slopes
        new.kept = new.kept and all(tensor.device.type == "cpu" for tensor in new.tensors)
        new.sight(self.states)
        self.last = new
        return new

    def _layer(self, i: int, new: _Taken) -> None:
        layer, state = self.run.layers[i], self.states[i]
        packed, bias = state["packed"], state["_buffers"]["bias"]
        data, scale = packed.get(), _scale_of(packed)
        check_bias(layer, bias)
        # Inference tensors have no version: such a layer is taken anew at every call.
        all_three = (data, scale, bias)
        if any(tensor is not None and tensor.is_inference() for tensor in all_three):
            new.seen[i] = ()
        else:
            versions = (None if tensor is None else tensor._version for tensor in all_three)
            new.seen[i] = (*all_three, *versions)
        numbers = self.run.program.numbers
        count = 2 if layer.folded is None else len(layer.folded)
        own = tuple(numbers[layer.numbers : layer.numbers + count])
        rest = [tensor for tensor in (scale, bias) if tensor is not None]
        if layer.folded is not None and foldable(scale, layer.ratio):
            own = layer.folded
            with torch.inference_mode(False), torch.no_grad():
                rest = fold(scale.detach(), None if bias is None else bias.detach(), layer)
        new.numbers[layer.numbers : layer.numbers + count] = own
        new.parts[i] = [data, *rest]


def _changed(state: dict[str, Any], seen: tuple[Any, ...]) -> bool:
    """Whether a layer has other tensors than those that were seen, or other values in them."""
    packed = state["packed"]
    now = (packed.__dict__["_data"], _scale_of(packed), state["_buffers"]["bias"])
    if not seen or any(a is not b for a, b in zip(now, seen, strict=False)):
        return True
    return seen[3:] != tuple(None if tensor is None else tensor._version for tensor in now)


def _is_recorded() -> bool:
    """Whether a call may be recorded, or run on other tensors than it is given, by a mode: a
    prepared net means nothing outside of this process."""
    modes: int = torch._C._len_torch_dispatch_stack()
    return modes > 0 or torch._C._get_tracing_state() is not None


def check_bias(layer: Layer, bias: Tensor | None) -> None:
    """Raises where a bias came or went since the program was made."""
    if (bias is not None) != layer.bias:
        now = "has" if bias is not None else "has no"
        raise RuntimeError(
            f"{layer.path} {now} bias, which the net's graph was made without knowing: change its "
            "values, or convert the model again"
        )


@dataclass(eq=False)
class NetRun:
    """``run(owner, *given)``: the registers that the program returns.

    ``given``: the program's inputs, and then slopes. ``layers``: in the order of the program, by
    their paths in ``owner``; what they give is remembered for each owner.
    """

    program: NetProgram
    layers: tuple[Layer, ...]
    name: str
    _bound: Any = field(default_factory=weakref.WeakKeyDictionary, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.__name__ = self.name
        self.__qualname__ = self.name
        self.has_slopes = any(layer.slope >= 0 for layer in self.layers)

    def __call__(self, owner: nn.Module, *given: Tensor) -> list[Tensor]:
        program = self.program
        inputs = given[: program.inputs]
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            raise RuntimeError(
                "this net has no gradient but its input requires grad: run under "
                "torch.inference_mode() or torch.no_grad(), or detach the input"
            )
        if torch.compiler.is_compiling():
            tensors, numbers = self._traced(owner, given)
        else:
            bound = self._bound.get(owner)
            if bound is None:
                bound = self._bound[owner] = _Bound(self, owner)
            taken = bound.take()
            if taken.kept and not _is_recorded():
                return taken.prepared(program)(inputs)
            tensors, numbers = taken.tensors, taken.numbers
            if self.has_slopes:
                tensors = self._with_slopes(taken.parts, given)
        out: list[Tensor] = torch.ops.pyops.run_net.default(
            inputs, tensors, program.steps, numbers, program.outputs
        )
        return out

    def _with_slopes(self, parts: list[list[Tensor]], given: tuple[Tensor, ...]) -> list[Tensor]:
        tensors = []
        for layer, part in zip(self.layers, parts, strict=True):
            tensors += part
            if layer.slope >= 0:
                tensors.append(given[layer.slope].float())  # PReLU's may be bfloat16
        return tensors

    def _traced(
        self, owner: nn.Module, given: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], list[float]]:
        """The same in terms that torch.compile and torch.export can follow: nothing is kept."""
        parts, numbers = [], list(self.program.numbers)
        for layer in self.layers:
            module: Any = owner.get_submodule(layer.path)
            packed, bias = module.packed, module._buffers["bias"]
            check_bias(layer, bias)
            scale = _scale_of(packed)
            rest = [tensor for tensor in (scale, bias) if tensor is not None]
            if layer.folded is not None and _folds_while_tracing(packed._key, layer.ratio):
                rest = fold(scale, bias, layer)
                for i, number in enumerate(layer.folded):
                    numbers[layer.numbers + i] = number
            parts.append([packed.get(), *rest])
        return self._with_slopes(parts, given), numbers

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_bound"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _bound=weakref.WeakKeyDictionary())

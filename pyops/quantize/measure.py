"""One run of the model on example inputs: each layer in float and converted, at the shapes seen."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.unchanged import unchanged
from .copying import evaluating
from .plan import Candidate
from .scheme import Scheme

_BUDGETS_NS = (8_000_000, 30_000_000, 100_000_000)  # per layer and shape, after the warm-up
_MIN_ROUNDS, _MAX_ROUNDS = 5, 100
_Key = tuple[tuple[int, ...], torch.dtype]


@dataclass
class Measured:
    """Sums over one run. ``calls``: times that each input shape and dtype was seen."""

    calls: dict[_Key, int] = field(default_factory=dict)
    ms: dict[_Key, tuple[float, float]] = field(default_factory=dict)
    signal: float = 0.0
    noise: float = 0.0

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(|y|^2 / |y - converted|^2) of the layer's output; None for an output of 0."""
        if not (math.isfinite(self.signal) and math.isfinite(self.noise)) or self.signal == 0:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.noise else math.inf

    def total_ms(self) -> tuple[float, float] | None:
        """(float, converted) for all calls of the run but those with empty inputs, which are not
        timed; None where nothing was.
        """
        if not self.ms:
            return None
        before = sum(ms[0] * self.calls[key] for key, ms in self.ms.items())
        after = sum(ms[1] * self.calls[key] for key, ms in self.ms.items())
        return before, after

    def shapes(self) -> str:
        return ", ".join(str(list(shape)) for shape, _ in self.calls)


def run_example(
    model: nn.Module,
    plan: list[Candidate],
    scheme: Scheme,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timed: bool,
    advance: Callable[[], None],
) -> dict[str, Measured]:
    """Runs the model once, as ``run``; a layer that is not reached is absent from the result.

    Only one layer is held converted at a time. The first call at each input shape is compared and
    timed, further ones are counted.

    Raises:
        ValueError: the model fails on these arguments.
    """
    results: dict[str, Measured] = {}
    handles = []
    for candidate in plan:
        if candidate.why_float is None:
            hook = _hook(results, candidate.name, scheme, timed, advance)
            layer = model.get_submodule(candidate.name)
            handles.append(layer.register_forward_hook(hook, with_kwargs=True))
    try:
        with evaluating(model), unchanged(model):
            model(*args, **kwargs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} fails on example_inputs: {type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return results


def run(model: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], workflow: str) -> Any:
    """What the model returns in eval mode; its buffers and attributes stay.

    Raises:
        ValueError: it fails.
    """
    try:
        with evaluating(model), unchanged(model):
            return model(*call[0], **call[1])
    except Exception as error:
        raise ValueError(
            f"{workflow}: the model fails on example_inputs: {type(error).__name__}: {error}"
        ) from error


# From a layer and an input that it saw: two calls, and what both take.
Pair = Callable[
    [nn.Module, Tensor], tuple[Callable[[Tensor], Any], Callable[[Tensor], Any], Tensor]
]


def run_pairs(
    model: nn.Module,
    pairs: Mapping[str, Pair],
    call: tuple[tuple[Any, ...], dict[str, Any]],
    workflow: str,
) -> dict[str, Measured]:
    """``run``, which times two calls in turn on each shape of input that a layer in ``pairs``, by
    name, sees. A layer that is not reached is absent from the result.

    Raises:
        ValueError: the model fails.
    """
    results: dict[str, Measured] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            _pair_hook(results, name, pair), with_kwargs=True
        )
        for name, pair in pairs.items()
    ]
    try:
        run(model, call, workflow)
    finally:
        for handle in handles:
            handle.remove()
    return results


def _pair_hook(results: dict[str, Measured], name: str, pair: Pair) -> Callable[..., None]:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        key = (tuple(x.shape), x.dtype)
        measured = results.setdefault(name, Measured())
        measured.calls[key] = measured.calls.get(key, 0) + 1
        if measured.calls[key] == 1 and x.numel():
            first, second, given = pair(layer, x)
            measured.ms[key] = _interleaved(_finished(first, given), _finished(second, given))

    return hook


def arguments_of(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``example_inputs`` as positional and keyword arguments; TypeError: not one of its types."""
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    if hasattr(example_inputs, "keys") and hasattr(example_inputs, "__getitem__"):
        return (), {str(key): example_inputs[key] for key in example_inputs.keys()}
    raise TypeError(
        "example_inputs must be a tensor, a tuple of positional arguments or a dict of keywords, "
        f"but is {type(example_inputs).__name__}"
    )


def _hook(
    results: dict[str, Measured],
    name: str,
    scheme: Scheme,
    timed: bool,
    advance: Callable[[], None],
) -> Callable[..., None]:
    def hook(
        layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        key = (tuple(x.shape), x.dtype)
        if name not in results:
            results[name] = Measured()
            advance()
        measured = results[name]
        measured.calls[key] = measured.calls.get(key, 0) + 1
        if measured.calls[key] > 1 or x.numel() == 0:
            return
        converted = scheme.build(layer)
        reference = output.to(torch.float64)
        measured.signal += float(reference.square().sum())
        measured.noise += float((reference - converted(x)).square().sum())
        if timed:
            measured.ms[key] = _interleaved(_finished(layer.forward, x), _finished(converted, x))

    return hook


def _finished(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """A call that ends when the device has: an accelerator only takes the work and returns."""

    def call() -> Tensor:
        out = layer(x)
        if x.device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(x.device)
        return out

    return call


def _interleaved(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float]:
    """Median milliseconds of each. In turns, so that a busy moment hits both alike."""
    first(), second()  # warm up: lazy initialisation, caches
    once = _time(first) + _time(second)
    for budget in _BUDGETS_NS:
        rounds = max(_MIN_ROUNDS, min(_MAX_ROUNDS, budget // max(1, once)))
        a, b = zip(*((_time(first), _time(second)) for _ in range(rounds)), strict=True)
        slower = statistics.median(b) > statistics.median(a)
        if slower == (min(b) > min(a)):  # else something else ran: look longer
            break
    return statistics.median(a) / 1e6, statistics.median(b) / 1e6


def _time(call: Callable[[], Any]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start

"""Calibration batches: whatever the caller gives, as calls of the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from ..copying import evaluating

Call = tuple[tuple[Any, ...], dict[str, Any]]


def calls_of(
    model: nn.Module,
    calibration: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any] | None,
    workflow: str = "quantize",
) -> list[Call]:
    """The arguments of each call of ``model`` that the batches stand for.

    Read once, and held as long as the workflow takes: equalization and bias correction look at
    them again. Errors name the ``workflow``.

    Raises:
        TypeError: a batch is none of a tensor, a tuple or list of positional arguments and a dict
            of keywords, and there is no ``forward``.
        ValueError: there is no batch, or ``forward`` does not call the model.
    """
    if isinstance(calibration, Tensor):
        raise TypeError(
            f"{workflow}: calibration is a Tensor, expected an iterable of batches: [tensor], or "
            "tensor.split(size)"
        )
    if forward is not None:
        return _recorded(model, calibration, forward, workflow)
    calls = [_call_of(batch, workflow) for batch in calibration]
    if not calls:
        raise ValueError(f"{workflow}: calibration holds no batch")
    return calls


def _call_of(batch: Any, workflow: str) -> Call:
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, (tuple, list)):
        return tuple(batch), {}
    if hasattr(batch, "keys") and hasattr(batch, "__getitem__"):
        return (), {str(key): batch[key] for key in batch.keys()}
    raise TypeError(
        f"{workflow}: a calibration batch must be a Tensor, a tuple of positional arguments or a "
        f"dict of keywords, but is {type(batch).__name__}: pass forward=lambda model, batch: ..."
    )


def _recorded(
    model: nn.Module,
    calibration: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any],
    workflow: str,
) -> list[Call]:
    calls: list[Call] = []
    note = model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, dict(kwargs))), with_kwargs=True
    )
    number = -1
    try:
        with evaluating(model):
            for number, batch in enumerate(calibration):  # noqa: B007
                forward(model, batch)
    finally:
        note.remove()
    if number < 0:
        raise ValueError(f"{workflow}: calibration holds no batch")
    if not calls:
        raise ValueError(f"{workflow}: forward= does not call the model it is given")
    return calls


def tensors_of(model: nn.Module, call: Call) -> dict[str, Tensor] | str:
    """The tensors that a call gives, by name; what else it gives, if that is not the default."""
    parameters = inspect.signature(type(model).forward).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    defaults = {p.name: p.default for p in parameters}
    given = dict(zip(names, call[0], strict=False))
    if len(call[0]) > len(names):
        return "it takes any number of arguments"
    given.update(call[1])
    for name in list(given):
        if not isinstance(given[name], Tensor):
            if name in defaults and given[name] is defaults[name]:
                del given[name]
            else:
                return f"its argument {name} is a {type(given[name]).__name__}"
    return given

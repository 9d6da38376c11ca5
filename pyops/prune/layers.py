"""The layers of a model that can be pruned, those that will be, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.masked_module import MASKED, MaskedModule
from ..nn.record import Record, get_record, set_record
from ..nn.registry import why_not_plain
from ..quantize.convert import float_bytes, put
from ..quantize.plan import Candidate, complaints, plan_layers
from ..quantize.select import Patterns
from .matrix import matrix_of

KINDS = ", ".join(sorted(f"nn.{source.__name__}" for source in MASKED))


@dataclass
class Weight:
    """One weight and the layers that hold it: several where it is tied."""

    parameter: nn.Parameter
    layers: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return next(iter(self.layers))

    @property
    def groups(self) -> int:
        return int(getattr(self.layers[self.name], "groups", 1))

    def left(self) -> Tensor | None:
        """The mask so far, of tied layers what all leave; None where nothing is masked."""
        left: Tensor | None = None
        for layer in self.layers.values():
            if isinstance(layer, MaskedModule):
                left = layer.weight_mask if left is None else left & layer.weight_mask
        return left


def prunable(module: nn.Module) -> bool:
    """Whether the module is of a class with a masked one, or of a subclass."""
    return isinstance(module, tuple(MASKED))


def make_plan(
    model: nn.Module,
    include: Patterns | None,
    exclude: Patterns | None,
    with_nan: bool = False,
) -> list[Candidate]:
    """All layers that could be pruned; ``why_float`` is set where one stays as it is.

    ``with_nan``: also those that hold NaN or Inf.

    Raises:
        TypeError: a pattern of another type.
        ValueError: a pattern matches nothing; a layer is converted already.
    """
    selecting = (prunable, "can be pruned")
    why = _why_unfit if with_nan else _why_dense
    return plan_layers(model, prunable, why, include, exclude, "stays dense", selecting)


def check_plan(model: nn.Module, plan: list[Candidate], strict: bool, workflow: str) -> None:
    """Raises:
    ValueError: no layer will be pruned, or ``strict`` and one that was asked for will not.
    """
    if not plan:
        raise ValueError(
            f"{workflow}: nothing to prune in {type(model).__name__}: it holds none of {KINDS}"
        )
    if all(candidate.why_float for candidate in plan):
        lines = [f"{c.name or '(the model)'}: {c.why_float}" for c in plan]
        more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
        text = f"{workflow}: nothing to prune in {type(model).__name__}: every layer stays dense:"
        raise ValueError("\n  ".join([text, *lines[:10], *more]))
    left = complaints(plan)
    if strict and left:
        raise ValueError(
            f"strict=True and {len(left)} layer(s) would stay dense:\n  " + "\n  ".join(left)
        )


def weights_of(model: nn.Module, plan: list[Candidate]) -> list[Weight]:
    """The weights of the layers that will be pruned, in the order of the model."""
    found: dict[int, Weight] = {}
    for candidate in plan:
        if candidate.why_float is None:
            layer: Any = model.get_submodule(candidate.name)
            weight = found.setdefault(id(layer.weight), Weight(layer.weight))
            weight.layers[candidate.name] = layer
    return list(found.values())


def same_layers(model: nn.Module, groups: Sequence[dict[str, Any]], workflow: str) -> list[Weight]:
    """The weights that these masked layers of the model (tied ones together) hold now.

    Raises:
        ValueError: the model has another layer by now, or tied ones hold different parameters.
    """
    found = []
    for layers in groups:
        for name, layer in layers.items():
            now: Any = _module_at(model, name)
            if now is not layer:
                raise ValueError(
                    f"{workflow}: {name!r} is {_kind(now)} now, and no longer the "
                    f"{type(layer).__name__} that was pruned: make another {workflow}"
                )
            wanted = layer.weight_mask.shape
            if not isinstance(layer.weight, nn.Parameter) or layer.weight.shape != wanted:
                raise ValueError(
                    f"{workflow}: the weight of {name!r} is {_kind(layer.weight)} of "
                    f"{list(layer.weight.shape)} now, expected a Parameter of {list(wanted)}"
                )
        weight = Weight(next(iter(layers.values())).weight, layers)
        for name, layer in layers.items():
            if layer.weight is not weight.parameter:
                raise ValueError(
                    f"{workflow}: {weight.name!r} and {name!r} no longer share their weight "
                    "(load_state_dict(assign=True) unties): tie it again"
                )
        found.append(weight)
    return found


def _module_at(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def mask_layers(model: nn.Module, plan: list[Candidate], how: str) -> nn.Module:
    """Puts masked layers, with nothing masked yet, in the place of those that will be pruned.

    Parameters stay the same objects. Leaves a record on every layer of the plan. Returns the model,
    which is another object only where the model itself is the layer.
    """
    counted: set[int] = set()
    for candidate in plan:
        old = model.get_submodule(candidate.name)
        masked = isinstance(old, MaskedModule)
        before = type(old).float_class if isinstance(old, MaskedModule) else type(old)
        size = float_bytes(old, without_weight=candidate.weight_key in counted)
        counted.add(candidate.weight_key)
        record = Record(before.__name__, candidate.why_float or how, size)
        if candidate.why_float is not None:
            if not masked or get_record(old) is None:
                set_record(old, record)
            continue
        new = old if masked else MASKED[type(old)].from_float(old)
        set_record(new, record)
        model = put(model, candidate.paths, new)
    return model


def masked_layers(model: nn.Module) -> Iterator[tuple[list[str], MaskedModule]]:
    """Every masked layer, with all of its names."""
    paths: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(name)
    for module in list(model.modules()):
        if isinstance(module, MaskedModule):
            yield paths[id(module)], module


def work_matrix(weight: Tensor) -> Tensor:
    """A copy to compute with: float64 stays, all else becomes float32."""
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return matrix_of(weight.detach()).to(dtype, copy=True)


def finite(weight: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    low, high = torch.aminmax(weight.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _why_dense(module: nn.Module, candidate: Candidate) -> str | None:
    why = _why_unfit(module, candidate)
    if why is not None:
        return why
    weight: nn.Parameter = module.weight  # type: ignore[assignment]
    return None if finite(weight) else "weight holds NaN or Inf"


def _why_unfit(module: nn.Module, candidate: Candidate) -> str | None:
    """The same whatever its values are."""
    ours = isinstance(module, MaskedModule) and type(module) in MASKED.values()
    why = None if ours else why_not_plain(module)
    if why is not None:
        return why
    weight: nn.Parameter = module.weight  # type: ignore[assignment]
    if not weight.is_floating_point():
        return f"weight is {str(weight.dtype).removeprefix('torch.')}, not a float"
    if weight.device.type == "meta":
        return "weight is on the meta device: there are no values to compare"
    if weight.numel() == 0:
        return f"weight is {list(weight.shape)}: nothing to prune"
    groups = int(getattr(module, "groups", 1))
    if groups > 1 and weight.shape[1] == 1 and not candidate.named:
        return (
            f"depthwise: {weight.numel()} weights in all, little to gain from zeros (include= "
            "prunes it)"
        )
    return None

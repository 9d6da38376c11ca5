"""Which layers of a model are replaced, and the reason for each one that is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nn import registry
from ..nn.containers import reads_weights
from ..nn.packed_module import PackedModule
from ..nn.registry import STATIC, matches, matches_for, why_not_depth
from .break_even import why_not_worth_it
from .scheme import Scheme
from .select import Patterns, select


@dataclass
class Candidate:
    """A layer that has a replacement. Holds no module, so that a converted weight can be freed.

    ``paths``: every name of a shared layer. ``weight_key``: equal for layers with tied weights.
    ``asked``: the caller wanted it converted (``why_float`` is then a complaint under strict).
    """

    paths: list[str]
    class_name: str
    in_features: int
    out_features: int
    weight_key: int
    why_float: str | None = None
    asked: bool = True
    named: bool = False

    @property
    def name(self) -> str:
        return self.paths[0]


def make_plan(
    model: nn.Module, scheme: Scheme, include: Patterns | None, exclude: Patterns | None
) -> list[Candidate]:
    """All layers of the model that have a replacement; ``why_float`` is set where one must stay.

    Raises:
        ValueError: the model holds a converted layer already, or a pattern matches nothing.
    """
    return plan_layers(
        model,
        lambda module: matches_for(module, scheme.weights),
        lambda module, candidate: _why_not(module, scheme, candidate),
        include,
        exclude,
    )


def plan_layers(
    model: nn.Module,
    is_candidate: Callable[[nn.Module], bool],
    why_not: Callable[[nn.Module, Candidate], str | None],
    include: Patterns | None,
    exclude: Patterns | None,
    stays: str = "stays in float",
    selecting: tuple[Callable[[nn.Module], bool], str] = (matches, "has an int8 replacement"),
) -> list[Candidate]:
    """The same for any workflow: its layers, and ``why_not`` one of them cannot be changed.

    ``stays``: what happens to such a layer; ``selecting``: see ``select``.
    """
    included = None if include is None else select(model, include, "include", *selecting)
    excluded = set() if exclude is None else select(model, exclude, "exclude")
    paths = defaultdict(list)
    inside: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        paths[id(module)].append(name)
        if isinstance(module, PackedModule):
            cls = type(module).__name__
            article = "an" if cls[0] in "AEIOU" else "a"
            raise ValueError(f"{name or 'the model'} is {article} {cls} already")
        why = reads_weights(module)
        if why is not None:
            inside.update((id(child), why) for child in module.modules())
    plan = []
    for module in model.modules():
        if not is_candidate(module):
            continue
        candidate = _candidate(module, paths[id(module)])
        candidate.named = included is not None and id(module) in included
        if id(module) in excluded or (included is not None and not candidate.named):
            candidate.asked = False
            candidate.why_float = (
                "excluded (exclude=)" if id(module) in excluded else "not chosen by include="
            )
        else:
            candidate.why_float = inside.get(id(module)) or why_not(module, candidate)
        plan.append(candidate)
    keep_ties(model, plan, stays)
    return plan


def _candidate(module: nn.Module, paths: list[str]) -> Candidate:
    weight = module._parameters.get("weight")
    known = weight is not None and not nn.parameter.is_lazy(weight) and weight.dim() > 1
    n, k = (len(weight), weight.shape[1:].numel()) if weight is not None and known else (0, 0)
    if type(module).__name__ == "Conv1D":  # stores [K, N]
        n, k = k, n
    return Candidate(paths, type(module).__name__, k, n, id(weight))


def _why_not(module: nn.Module, scheme: Scheme, candidate: Candidate) -> str | None:
    why = registry.why_not(module) or why_not_depth(
        candidate.in_features, scheme.replacement(module)
    )
    if why is not None:
        return why
    if scheme.weights == STATIC and module.weight.dtype != torch.float32:
        return f"weight is {module.weight.dtype}, and static int8 is made from float32"
    weight: Tensor = module.weight  # type: ignore[assignment]
    low, high = torch.aminmax(weight.detach())  # reads the weight once and allocates nothing
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        return "weight holds NaN or Inf"
    return None


def apply_break_even(plan: list[Candidate], scheme: Scheme) -> None:
    """For layers that nothing was timed for; a layer named by ``include=`` is converted anyway."""
    for candidate in plan:
        if candidate.why_float is None and not candidate.named:
            candidate.why_float = why_not_worth_it(
                candidate.in_features, candidate.out_features, scheme.label
            )


def keep_ties(model: nn.Module, plan: list[Candidate], stays: str = "stays in float") -> None:
    """A weight tied to one that stays in float stays too: packing it would hold it twice."""
    owners: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners[id(parameter)].append((path, name))
    by_path = {candidate.name: candidate for candidate in plan}
    changed = True
    while changed:
        changed = False
        for candidate in plan:
            if candidate.why_float is not None:
                continue
            for path, name in owners[candidate.weight_key]:
                other = by_path.get(path)
                packed = other is not None and other.why_float is None and name == "weight"
                if not packed or (other and other.class_name != candidate.class_name):
                    candidate.why_float = f"weight is tied to {path}.{name}, which {stays}"
                    changed = True
                    break


def complaints(plan: list[Candidate]) -> list[str]:
    """One line per layer that was asked for and stays in float."""
    return [f"{c.name or '(the model)'}: {c.why_float}" for c in plan if c.asked and c.why_float]

"""What a smaller model kept of its layers, as plain data: it rebuilds the structure for a file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.record import Record, get_record, set_record
from ...quantize.convert import float_bytes
from ...quantize.copying import copy_model
from .layers import KINDS, SHRUNK, count_of, cuts_of, depthwise, describe, tensors_in, why_whole

VERSION = 1
_ATTRIBUTE = "_pyops_channel_plan"
Kept = Mapping[str, Mapping[str, Tensor]]


def channel_plan(model: nn.Module) -> dict[str, Any]:
    """What ``prune_channels`` left of a model's layers: a dict of plain data, which JSON can hold.

    ``{"version": 1, "layers": {path: {"out" or "in": {"channels": before, "kept": [...]}}},
    "groups": [{"layers": [path, ...], "before": 64, "after": 40, "note": ...}, ...], "macs":
    [{"before": total, "after": total, "layers": {path: [before, after]}}, ...]}``. ``kept`` counts
    in the model as it was before any pruning; ``groups`` says what each call of ``prune_channels``
    did, and why channels stayed; ``macs``, a row for each call, the multiply-accumulates in one run
    on its ``example_inputs``. ``pyops.save`` keeps the plan, and ``apply_channel_plan`` gives a
    fresh model the same structure, for a ``state_dict``.

    Raises:
        ValueError: the model's channels were not pruned.
    """
    plan = plan_of(model)
    if plan is None:
        raise ValueError(
            f"channel_plan: the {type(model).__name__} has no plan: prune_channels did not make it"
        )
    return copy.deepcopy(plan)


def plan_of(model: nn.Module) -> dict[str, Any] | None:
    """The plan itself; None where there is none."""
    plan = model.__dict__.get(_ATTRIBUTE)
    return plan if isinstance(plan, dict) else None


def apply_channel_plan(
    skeleton: nn.Module, plan: Mapping[str, Any], *, inplace: bool = False
) -> nn.Module:
    """A model of the same class with the smaller layers of a plan, for its ``state_dict``.

    Args:
        skeleton: the model before any pruning, also on the meta device. What it holds is cut as
            the plan says: of the weights that were pruned, those that stayed.
        plan: what ``channel_plan`` returned.
        inplace: change ``skeleton`` itself.

    Returns:
        A copy, or ``skeleton`` with ``inplace=True``.

    Raises:
        TypeError: ``skeleton`` is not an ``nn.Module`` or cannot be copied.
        ValueError: the plan is damaged, of another version, or of another model: the first
            difference is named and the skeleton is as it was.
    """
    if not isinstance(skeleton, nn.Module):
        raise TypeError(f"apply_channel_plan takes an nn.Module, but got {type(skeleton).__name__}")
    if _ATTRIBUTE in skeleton.__dict__:
        raise ValueError("apply_channel_plan: the skeleton's channels are pruned already")
    try:
        kept = _read(skeleton, plan)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"apply_channel_plan: damaged plan: {type(error).__name__}: {error}"
        ) from error
    target = skeleton if inplace else copy_model(skeleton, True, "apply_channel_plan")
    cut(target, kept, list(plan["groups"]), list(plan.get("macs", [])))
    return target


def cut(
    model: nn.Module, kept: Kept, groups: list[dict[str, Any]], macs: list[dict[str, Any]]
) -> None:
    """Makes a model's layers smaller, in place, and notes it in its plan and their records."""
    layers = {path: model.get_submodule(path) for path in kept}
    before = {
        path: {axis: count_of(layer, axis) for axis in kept[path]} for path, layer in layers.items()
    }
    sizes = {path: _bytes_before(layer) for path, layer in layers.items()}
    plan = _joined(model.__dict__.get(_ATTRIBUTE), kept, before, groups)
    plan["macs"] = plan.get("macs", []) + copy.deepcopy(macs)
    for one in cuts_of((layer, kept[path]) for path, layer in layers.items()):
        one.make()
    for path, layer in layers.items():
        sides = plan["layers"][path]
        reason = describe(layer, {axis: side["channels"] for axis, side in sides.items()})
        rows = [one["layers"][path] for one in plan["macs"] if path in one["layers"]]
        if rows:
            reason += f"; multiply-accumulates {rows[0][0]:,} -> {rows[-1][1]:,}"
        set_record(layer, Record(type(layer).__name__, reason, sizes[path]))
    model.__dict__[_ATTRIBUTE] = plan


def _bytes_before(layer: nn.Module) -> int:
    """Of its parameters, before it lost channels for the first time."""
    record = get_record(layer)
    if record is not None and record.reason.startswith(SHRUNK):
        return record.bytes_before
    return float_bytes(layer)


def _joined(
    old: Any, kept: Kept, before: Mapping[str, Mapping[str, int]], groups: list[dict[str, Any]]
) -> dict[str, Any]:
    """The plan after this cut and those before it."""
    plan: dict[str, Any] = copy.deepcopy(old) or {"version": VERSION, "layers": {}, "groups": []}
    for path, axes in kept.items():
        sides = plan["layers"].setdefault(path, {})
        for axis, positions in axes.items():
            side = sides.setdefault(axis, None)
            if side is None:
                count = before[path][axis]
                side = sides[axis] = {"channels": count, "kept": list(range(count))}
            side["kept"] = [side["kept"][i] for i in positions.tolist()]
    plan["groups"] = plan["groups"] + copy.deepcopy(groups)
    return plan


def _read(model: nn.Module, plan: Any) -> dict[str, dict[str, Tensor]]:
    if not isinstance(plan, Mapping) or "version" not in plan:
        raise ValueError("apply_channel_plan: not a plan that channel_plan returned")
    if plan["version"] != VERSION:
        raise ValueError(
            f"apply_channel_plan: the plan's version is {plan['version']!r}, expected {VERSION}"
        )
    _check_rows(plan)
    paths = dict(model.named_modules())
    kept: dict[str, dict[str, Tensor]] = {}
    for path, axes in plan["layers"].items():
        layer = paths.get(path)
        if layer is None:
            raise ValueError(f"apply_channel_plan: the model has no layer {path!r}")
        if type(layer) not in KINDS:
            expected = ", ".join(kind.__name__ for kind in KINDS)
            raise ValueError(
                f"apply_channel_plan: {path} is a {type(layer).__name__}, expected one of "
                f"{expected}"
            )
        why = why_whole(layer)
        if why is not None:
            raise ValueError(f"apply_channel_plan: {path} {why}")
        kept[path] = {axis: _side(path, layer, axis, side) for axis, side in axes.items()}
        _check_grouped(path, layer, kept[path])
    _check_shared(model, {id(paths[path]): (path, axes) for path, axes in kept.items()})
    return kept


def _check_rows(plan: Mapping[str, Any]) -> None:
    """What only people read has to be of its types, too."""
    for name in ("groups", "macs"):
        if not isinstance(plan.get(name, []), list):
            raise TypeError(f"{name} is not a list")
    for row in plan["groups"]:
        texts = [*row["layers"], row["note"]]
        counts = [row["before"], row["after"]]
        _check_types(row, texts, counts)
    for row in plan.get("macs", []):
        counts = [row["before"], row["after"]]
        for pair in row["layers"].values():
            if not isinstance(pair, list) or len(pair) != 2:
                raise TypeError(f"{_short(pair)} is not a list of 2 counts")
            counts += pair
        _check_types(row, list(row["layers"]), counts)


def _check_types(row: Any, texts: list[Any], counts: list[Any]) -> None:
    if not all(isinstance(text, str) for text in texts) or not all(
        type(count) is int and count >= 0 for count in counts
    ):
        raise TypeError(f"{_short(row)} holds something else than names and counts")


def _side(path: str, layer: nn.Module, axis: str, side: Any) -> Tensor:
    if axis not in KINDS[type(layer)].counts:
        raise ValueError(f"apply_channel_plan: {path} has no side {axis!r}")
    count, kept = side["channels"], side["kept"]
    if count != count_of(layer, axis):
        raise ValueError(
            f"apply_channel_plan: {path} has {count_of(layer, axis)} channels ({axis}), the plan "
            f"expects {count}"
        )
    numbers = isinstance(kept, list) and all(type(one) is int for one in kept)
    if not numbers or not kept or kept != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < count:
        raise ValueError(
            f"apply_channel_plan: kept of {path} ({axis}) must be rising numbers from 0 to "
            f"{count - 1}, but is {_short(kept)}"
        )
    return torch.tensor(kept, dtype=torch.int64)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_grouped(path: str, layer: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Groups lose the same channels; a depthwise channel leaves on both sides."""
    groups = int(getattr(layer, "groups", 1))
    for axis, positions in kept.items() if groups > 1 and not depthwise(layer) else ():
        stays = torch.zeros(count_of(layer, axis), dtype=torch.bool)
        stays[positions] = True
        rows = stays.view(groups, -1)
        if not torch.equal(rows, rows[:1].expand_as(rows)):
            raise ValueError(f"apply_channel_plan: the groups of {path} ({axis}) keep other ones")
    if depthwise(layer):
        times = count_of(layer, "out") // count_of(layer, "in")
        both = [(kept["in"][:, None] * times + torch.arange(times)).flatten(), kept["out"]]
        if not torch.equal(*both):
            raise ValueError(f"apply_channel_plan: {path} keeps other inputs than outputs")


def _check_shared(model: nn.Module, cuts: Mapping[int, tuple[str, Mapping[str, Tensor]]]) -> None:
    """All layers with one tensor keep the same of it."""
    seen: dict[int, tuple[str, dict[str, list[int]]]] = {}
    for path, module in model.named_modules():
        for name, tensor in tensors_in(module).items():
            kind = KINDS.get(type(module))
            axes = cuts[id(module)][1] if id(module) in cuts else {}
            of_tensor = kind.tensors.get(name, ()) if kind is not None else ()
            own = {axis: axes[axis].tolist() for axis in of_tensor if axis in axes}
            first, other = seen.setdefault(id(tensor), (path, own))
            if own != other:
                raise ValueError(
                    f"apply_channel_plan: {path} shares its {name} with {first}, but keeps others"
                )

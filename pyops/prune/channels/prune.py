"""``prune_channels``: a model with fewer channels, whose layers are smaller and so faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...quantize.copying import copy_model
from ...quantize.quantize import check_model
from ...quantize.select import Patterns, select
from .check import check_result
from .choose import Choice, Limits, choose, scopes
from .graphs import graphs_of, in_train_mode
from .groups import ChannelGroups, call_of, groups_of, kept_of
from .layers import KINDS
from .macs import Macs
from .masked import unread
from .plan import cut
from .scores import criteria, score
from .target import choose_for

_NAME = "prune_channels"
_SHOWN = 10


def prune_channels(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    macs: float | None = None,
    criterion: str = "l1",
    scope: str = "layer",
    example_inputs: Any = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    round_to: int | None = None,
    least: int = 1,
    generator: torch.Generator | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Removes whole channels: the layers that make and read them become smaller.

    The result is the same class with smaller layers under the same names, an ordinary float model
    to train on, ``pyops.fuse`` or ``pyops.quantize``. Channels that depend on each other leave
    together (``channel_groups`` shows them); the model's inputs and outputs keep their sizes. So do
    layers that run in neither eval nor train mode. Before it is returned, the model is compared on
    ``example_inputs``, in float64, with one of the old size in which nothing reads the channels
    that left. An optimizer has to be made from the new parameters. ``channel_plan`` says what was
    kept.

    Args:
        model: any ``nn.Module`` that ``torch.fx`` can trace. It is not changed.
        sparsity: the share of channels to remove, above 0 and below 1. Multiplications fall by
            about its square where both sides of a layer lose as much.
        macs: in its place, the share of multiply-accumulates that may stay, above 0 and below 1:
            the lowest sparsity that leaves no more of those of all ``nn.Linear`` and convolutions
            in a run on ``example_inputs`` is taken. ``channel_plan`` lists them by layer.
        criterion: what leaves first. "l1", "l2": channels with a small norm of all weights that
            leave with them, filters and the columns that read them (Li et al., arXiv:1608.08710;
            Fang et al., arXiv:2301.12900). "bn": with a small scale in their batch norms (Liu et
            al., arXiv:1708.06519); groups without a batch norm stay. "random": any.
        scope: "layer": each group of channels loses its share. "global": one threshold over all,
            on scores divided by the largest of their group.
        example_inputs: a tensor, a tuple of positional arguments or a dict of keywords that the
            model runs on. None: noise, for a model of one argument.
        include: prune only the outputs of layers that these match: one or several names, globs or
            types. Of layers that can only be pruned together, all have to match.
        exclude: layers whose outputs stay; their inputs may still become fewer.
        round_to: channels that stay are a multiple of it, the nearest, or all of them where that is
            nearer; in a group with fewer channels, of its half, its quarter, ... None: what our
            kernels like, 32 in groups of at least 32 channels (so one of 32 stays whole) and 16 in
            others. In a grouped convolution each of its groups is counted once.
        least: how many channels stay in each group at least.
        generator: where criterion="random" takes its numbers from; by default one with seed 0.
        inplace: make the layers of ``model`` itself smaller.

    Returns:
        The smaller copy, in the modes and with ``requires_grad`` of ``model``, sharing nothing with
        it; or ``model`` with ``inplace=True``.

    Raises:
        TypeError: not an ``nn.Module``; a scripted, compiled or wrapped one; one that cannot be
            copied; an argument of another type.
        ValueError: an argument is out of range; nothing can be removed (each reason is listed); the
            model cannot be traced (in train mode: if it has layers that run there alone), fails on
            ``example_inputs``, or would compute something else with smaller layers. In all cases
            the model is as it was.
    """
    check_model(model, False, _NAME)
    limits = _limits(sparsity, macs, round_to, least)
    _check_names(criterion, scope, generator)
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{_NAME}: {name} is on the meta device: it has no values to compare")
    work = copy_model(model, True, _NAME)
    with torch.random.fork_rng(devices=[]):  # the model may draw numbers, not the caller's
        call = call_of(work, example_inputs, _NAME)
        graphs = graphs_of(work, call, _NAME)
        counted = Macs(work, call, _NAME)
    groups = groups_of(work, graphs)
    why = _stay(work, groups, include, exclude, limits)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    scores = _scores(work, groups, why, criterion, generator)
    if not scores:
        raise ValueError(_nothing(model, groups, why))

    def left(choice: Choice) -> int:
        return sum(counted.after(kept_of(groups, choice.removed, work)).values())

    if macs is None:
        choice = choose(groups, scores, scope, limits)
    else:
        choice = choose_for(float(macs), left, groups, scores, scope, limits)
    if not any(map(len, choice.removed.values())):
        raise ValueError(_nothing(model, groups, {**why, **choice.notes}, sparsity))
    kept = kept_of(groups, choice.removed, work)
    report, macs_report = _report(groups, choice, why), counted.report(kept)
    whole = copy_model(work, True, _NAME)
    unread(whole, groups, choice.removed)
    cut(work, kept, report, [macs_report])
    check_result(work, whole, call, _NAME)
    if len(graphs.each) > 1:
        check_result(work, whole, call, f"{_NAME}: in train mode", in_train_mode)
    del whole
    if not inplace:
        return work
    cut(model, kept, report, [macs_report])
    return model


def _limits(sparsity: Any, macs: Any, round_to: Any, least: Any) -> Limits:
    if (sparsity is None) == (macs is None):
        given = (
            f"both sparsity={sparsity!r} and macs={macs!r} are" if macs is not None else "none is"
        )
        raise ValueError(f"{_NAME}: {given} given, expected one of sparsity= and macs=")
    for name, value in (("sparsity", sparsity), ("macs", macs)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{_NAME}: {name} is {value!r}, expected a number")
        if not 0 < value < 1:
            raise ValueError(f"{_NAME}: {name} is {value}, expected above 0 and below 1")
    for name, value in (("round_to", 1 if round_to is None else round_to), ("least", least)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{_NAME}: {name} is {value!r}, expected an integer")
        if value < 1:
            raise ValueError(f"{_NAME}: {name} is {value}, expected at least 1")
    return Limits(float(sparsity or 0), round_to, least)


def _check_names(criterion: Any, scope: Any, generator: Any) -> None:
    for name, value, known in (("criterion", criterion, criteria()), ("scope", scope, scopes())):
        if value not in known:
            expected = ", ".join(map(repr, known))
            raise ValueError(f"{_NAME}: {name} is {value!r}, expected one of {expected}")
    if generator is not None and not isinstance(generator, torch.Generator):
        given = type(generator).__name__
        raise TypeError(f"{_NAME}: generator is a {given}, expected a torch.Generator")
    if generator is not None and criterion != "random":
        raise ValueError(f"{_NAME}: generator is given, but criterion={criterion!r} uses none")


def _stay(
    model: nn.Module,
    groups: ChannelGroups,
    include: Patterns | None,
    exclude: Patterns | None,
    limits: Limits,
) -> dict[int, str]:
    """Of each group that cannot lose channels, why."""
    chosen = None if include is None else select(model, include, "include")
    left = set() if exclude is None else select(model, exclude, "exclude")
    why = {}
    for index, group in enumerate(groups):
        makers = [model.get_submodule(path) for path in group.paths]
        makers = [module for module in makers if KINDS[type(module)].multiplies]
        if group.reason is not None:
            why[index] = group.reason
        elif any(id(module) in left for module in makers):
            why[index] = "excluded (exclude=)"
        elif chosen is not None and not all(id(module) in chosen for module in makers):
            why[index] = "not chosen by include="
        elif group.size <= limits.least:
            why[index] = f"has {group.size} channels, least={limits.least} stay"
    return why


def _scores(
    model: nn.Module,
    groups: ChannelGroups,
    why: dict[int, str],
    criterion: str,
    generator: torch.Generator,
) -> dict[int, Tensor]:
    """The scores of the groups that can lose channels; ``why`` is given those without a score."""
    scores = {}
    for index, group in enumerate(groups):
        if index in why:
            continue
        found = score(criterion, model, group, generator)
        if found is None:
            why[index] = f"nothing in it has a score by criterion={criterion!r}"
        elif not bool(found.isfinite().all()):
            raise ValueError(f"{_NAME}: the weights of {', '.join(group.paths)} are not finite")
        else:
            scores[index] = found
    return scores


def _nothing(
    model: nn.Module, groups: ChannelGroups, why: dict[int, str], sparsity: float | None = None
) -> str:
    text = f"{_NAME}: nothing to remove in {type(model).__name__}"
    if sparsity is not None:
        text += f" with sparsity={sparsity}"
    lines = [
        f"{group.name} ({group.size} channels): {why.get(i, 'its share is less than one channel')}"
        for i, group in enumerate(groups)
        if group.paths  # not the model's inputs
    ]
    if not lines:
        return f"{text}: no layer with channels runs"
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    if any("multiples of" in line for line in lines):
        more.append("round_to= takes other multiples")
    return "\n  ".join([f"{text}:", *lines[:_SHOWN], *more])


def _report(groups: ChannelGroups, choice: Choice, why: dict[int, str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        if not group.paths:
            continue  # the model's inputs
        gone = len(choice.removed.get(index, ()))
        rows.append(
            {
                "layers": list(group.paths),
                "before": group.size,
                "after": group.size - gone,
                "note": why.get(index, choice.notes.get(index, "")),
            }
        )
    return rows

"""How many channels leave for a number of multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from .choose import Choice, Limits, choose
from .groups import ChannelGroup

_STEPS = 1000  # sparsities that are tried lie 1 / 1000 apart
_NOTHING = Choice({}, {})


def choose_for(
    share: float,
    macs: Callable[[Choice], int],
    groups: Sequence[ChannelGroup],
    scores: Mapping[int, Tensor],
    scope: str,
    limits: Limits,
) -> Choice:
    """The choice of the lowest sparsity that leaves no more than ``share`` of ``macs``.

    Of the groups that become smaller at its last step, those whose channels are worth the least
    (of the sum of their scores) go first, and none that it does not take.

    Raises:
        ValueError: no sparsity does.
    """
    most = int(share * macs(_NOTHING))

    def at(step: int) -> Choice | None:
        try:
            return choose(groups, scores, scope, replace(limits, sparsity=step / _STEPS))
        except ValueError:  # fewer channels may leave
            return None

    def reached(step: int) -> bool:
        choice = at(step)
        return choice is None or macs(choice) <= most

    step = _first(reached)
    found = at(step)
    if found is None or macs(found) > most:
        highest = at(_first(lambda step: at(step) is None) - 1) or _NOTHING
        lowest = macs(highest) / macs(_NOTHING)
        raise ValueError(
            f"prune_channels: macs is {share:g}, but at least {lowest:.3g} of the "
            "multiply-accumulates stay with these groups, round_to and least"
        )
    before = (at(step - 1) if step > 1 else None) or _NOTHING
    return _between(before, found, scores, lambda choice: macs(choice) <= most)


def _first(true: Callable[[int], bool]) -> int:
    """The first step from 1 on where it is true, as it then stays; else one behind the last."""
    low, high = 1, _STEPS
    while low < high:
        middle = (low + high) // 2
        if true(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _between(
    before: Choice, after: Choice, scores: Mapping[int, Tensor], enough: Callable[[Choice], bool]
) -> Choice:
    def worth(index: int) -> float:
        gone = set(after.removed[index].tolist())
        more = sorted(gone - set(before.removed[index].tolist() if index in before.removed else ()))
        total = float(scores[index].sum())
        return float(scores[index][more].sum()) / total if total else 0.0

    lost = {index: worth(index) for index in after.removed}
    order = sorted(lost, key=lambda index: (lost[index], index))
    taken: list[int] = []
    for index in order:
        if enough(_mixed(before, after, taken)):
            break
        taken.append(index)
    for index in reversed(taken):  # what came first may not be needed beside what came later
        others = [one for one in taken if one != index]
        if enough(_mixed(before, after, others)):
            taken = others
    return _mixed(before, after, taken)


def _mixed(before: Choice, after: Choice, taken: Sequence[int]) -> Choice:
    """``before``, but these groups as in ``after``."""
    removed, notes = dict(before.removed), dict(before.notes)
    for index in taken:
        removed[index] = after.removed[index]
        notes.pop(index, None)
        if index in after.notes:
            notes[index] = after.notes[index]
    return Choice(removed, notes)

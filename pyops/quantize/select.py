"""include= and exclude=: names, globs or types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from ..nn.registry import matches

Pattern = str | type
Patterns = Pattern | Iterable[Pattern]


def select(
    model: nn.Module,
    patterns: Patterns,
    keyword: str,
    wanted: Callable[[nn.Module], bool] = matches,
    has: str = "has an int8 replacement",
) -> set[int]:
    """ids of the modules that a pattern names, and of everything inside them.

    A string is compared with each qualified name: equal, or as a glob where ``*`` also crosses
    dots. A type matches its instances. ``wanted``: the layers that an ``include`` is for; ``has``
    says in words what is true of them.

    Raises:
        TypeError: a pattern is neither a string nor a type.
        ValueError: a pattern matches nothing (the nearest names are given), or an ``include``
            pattern matches no layer that is ``wanted``.
    """
    paths = list(model.named_modules(remove_duplicate=False))
    chosen: set[int] = set()
    for pattern in _as_list(patterns, keyword):
        roots = [module for name, module in paths if _hit(pattern, name, module)]
        if not roots:
            raise ValueError(_no_match(pattern, keyword, paths))
        inside = [module for root in roots for module in root.modules()]
        if keyword == "include" and not any(map(wanted, inside)):
            found = sorted({type(root).__name__ for root in roots})
            raise ValueError(
                f"include={_show(pattern)} matches only {', '.join(found)}: no layer in it {has}"
            )
        chosen.update(id(module) for module in inside)
    return chosen


def _as_list(patterns: Patterns, keyword: str) -> list[Pattern]:
    listed: list[object]
    if isinstance(patterns, (str, type)) or not isinstance(patterns, Iterable):
        listed = [patterns]
    else:
        listed = list(patterns)
    for pattern in listed:
        if not isinstance(pattern, (str, type)):
            raise TypeError(
                f"{keyword}= takes names, globs or types, but got {pattern!r} "
                f"({type(pattern).__name__})"
            )
    return listed  # type: ignore[return-value]


def _hit(pattern: Pattern, name: str, module: nn.Module) -> bool:
    if isinstance(pattern, str):
        return pattern == name or fnmatchcase(name, pattern)
    return isinstance(module, pattern)


def _no_match(pattern: Pattern, keyword: str, paths: list[tuple[str, nn.Module]]) -> str:
    if isinstance(pattern, str):
        names = [name for name, _ in paths if name]
        near = get_close_matches(pattern, names, n=3, cutoff=0.5)
        near = near or [name for name in names if pattern.strip("*.") in name][:3]
    else:
        classes = sorted({type(module).__name__ for _, module in paths})
        near = get_close_matches(pattern.__name__, classes, n=3, cutoff=0.5) or classes[:3]
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
    return f"{keyword}={_show(pattern)} matches nothing in the model{hint}"


def _show(pattern: Pattern) -> str:
    return repr(pattern) if isinstance(pattern, str) else pattern.__name__

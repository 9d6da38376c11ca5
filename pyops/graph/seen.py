"""What dicts held at one moment, compared with what they hold now: a net does that at every call.

Between two calls the weights of a net have pushed its modules' dicts out of the caches, so a loop
in Python waits for one after the other.
"""

from __future__ import annotations

from typing import Any

from ..backends import _C

_ABSENT = object()


class Seen:
    """Entries and sizes of dicts, as they were when they were noted."""

    def __init__(self) -> None:
        self._dicts: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self._sized: list[dict[str, Any]] = []
        self._sizes: list[int] = []

    def note(self, mapping: dict[str, Any], name: str) -> Any:
        """Notes which object, if any, stands under a name; returns it, or None."""
        value = mapping.get(name, _ABSENT)
        self._dicts.append(mapping)
        self._names.append(name)
        self._values.append(value)
        return None if value is _ABSENT else value

    def note_size(self, mapping: dict[str, Any]) -> None:
        """Notes how many entries there are."""
        self._sized.append(mapping)
        self._sizes.append(len(mapping))

    def same(self) -> bool:
        """Whether all of it is so still: the same objects, and as many."""
        if _C is not None:
            entries = _C.same_entries(self._dicts, self._names, self._values, _ABSENT)
            return entries and _C.same_sizes(self._sized, self._sizes)
        noted = zip(self._dicts, self._names, self._values, strict=True)
        return all(d.get(n, _ABSENT) is v for d, n, v in noted) and self._sizes == [
            len(d) for d in self._sized
        ]

"""How many units go from each part of a weight that loses so many in all."""

from __future__ import annotations

from collections.abc import Sequence


def share_out(total: int, sizes: Sequence[int], gone: Sequence[int]) -> list[int]:
    """In proportion to ``sizes``, but at least ``gone`` from each part; ``total`` in all.

    Where a part lacks more than its share already, the others lose less. If all lack more than
    ``total`` it is ``gone``.
    """
    free = list(range(len(sizes)))
    rest = max(total, sum(gone))
    found = list(gone)
    while True:
        whole = max(sum(sizes[i] for i in free), 1)
        seen = given = 0
        for i in free:
            seen += sizes[i]
            upto = (2 * rest * seen + whole) // (2 * whole)
            found[i], given = upto - given, upto
        short = {i for i in free if found[i] < gone[i]}
        if not short:
            return found
        for i in short:
            found[i] = gone[i]
            rest -= gone[i]
        free = [i for i in free if i not in short]

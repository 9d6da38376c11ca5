"""Finding the range of every edge: one pass over the calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..edge import Edge, edge_of
from ..observers import OBSERVERS, Observer
from .net import Net, Steps


def calibrate(
    net: Net,
    batches: Iterable[Mapping[str, Tensor]],
    method: str,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Edge]:
    """The scale and zero point of each edge, by the name of its owner.

    The model's own inputs keep all of their range: pixels have no outliers.

    Raises:
        ValueError: there is no batch; an activation is NaN or infinite (its step is named).
    """
    watched = {
        node: OBSERVERS["min_max" if node.op == "placeholder" else method]()
        for node in net.edges.owners
    }
    observing = _Observing(net, watched)
    count = 0
    with torch.no_grad():
        for count, batch in enumerate(batches, 1):  # noqa: B007
            observing.values(batch)
            advance()
    if not count:
        raise ValueError("quantize: calibration holds no batch")
    return {net.edges.names[node]: edge_of(*one.range()) for node, one in watched.items()}


class _Observing(Steps):
    def __init__(self, net: Net, watched: dict[fx.Node, Observer]) -> None:
        super().__init__(net)
        self.watched = watched

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.watched:
            try:
                self.watched[n].update(value)
            except ValueError as error:
                name = self.net.edges.names[n]
                raise ValueError(f"quantize: the output of {name!r} {error}") from error
        return value

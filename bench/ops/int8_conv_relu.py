"""Int8 convolutions of ResNet-50 and MobileNetV2: uint8 in, uint8 out, all fused in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from case import Case
from conv_cases import STEM, conv
from conv_layers import ConvLayer, layers_of

from pyops.testing.models import mobilenet_v2, resnet

if TYPE_CHECKING:
    from measure import Row

SIZE = 224
# Batches of each set; the nets' layers at each.
BATCHES = {"main": (1,), "all": (1, 8)}
# Channels and sides that fit no tile, kernels, strides and dilations that no net above has.
ODD = (
    ConvLayer((1, 37, 27, 31), 53, (3, 3), (1, 1), (1, 1), (1, 1), 1, "relu", False),
    ConvLayer((1, 65, 28, 28), 129, (1, 1), (1, 1), (0, 0), (1, 1), 1, "relu", True),
    ConvLayer((2, 63, 19, 23), 63, (5, 5), (2, 2), (2, 2), (1, 1), 63, "relu6", False),
    ConvLayer((1, 64, 28, 28), 64, (3, 3), (1, 1), (2, 2), (2, 2), 1, "none", False),
    ConvLayer((1, 96, 28, 28), 96, (3, 3), (1, 1), (1, 1), (1, 1), 4, "relu", False),
)
TINY = (
    ConvLayer((1, 3, 9, 9), 8, (3, 3), (2, 2), (1, 1), (1, 1), 1, "relu6", False),
    ConvLayer((2, 16, 5, 5), 24, (1, 1), (1, 1), (0, 0), (1, 1), 1, "relu", True),
    ConvLayer((1, 24, 6, 5), 24, (3, 3), (1, 1), (1, 1), (1, 1), 24, "none", False),
)
SETS = {"odd": ODD, "tiny": TINY}


def cases(shapes: str) -> Iterator[Case]:
    """Yield a case per different layer of the set ``shapes``.

    Raises:
        ValueError: there is no such set.
    """
    if shapes in SETS:
        found: list[ConvLayer] = list(SETS[shapes])
    elif shapes in BATCHES:
        found = [layer for net in NETS for n in BATCHES[shapes] for layer in layers(net, n)]
    else:
        names = ", ".join((*BATCHES, *SETS))
        raise ValueError(f"{STEM} has no shapes {shapes!r}; there are {names}")
    for layer in dict.fromkeys(found):
        yield conv(layer)


NETS = {"resnet50": lambda: resnet.ResNet(50), "mobilenet_v2": mobilenet_v2.MobileNetV2}


@lru_cache
def layers(net: str, batch: int) -> Counter[ConvLayer]:
    """Return the different layers of a net, and how often each runs."""
    with torch.device("meta"):
        return layers_of(NETS[net]().eval(), torch.empty(batch, 3, SIZE, SIZE))


def conclude(rows: list[Row]) -> Iterator[str]:
    """Yield the sum over the layers of each net, as often as each runs, per candidate."""
    times = {(row.case, row.candidate): row.median_us for row in rows}
    candidates = dict.fromkeys(row.candidate for row in rows)
    for net in NETS:
        for batch in BATCHES["all"]:
            names = {f"{STEM} {layer.name}": n for layer, n in layers(net, batch).items()}
            if not names.keys() <= {row.case for row in rows}:
                continue
            for candidate in candidates:
                timed = {name: times.get((name, candidate)) for name in names}
                total = sum(us * names[name] for name, us in timed.items() if us is not None)
                absent = sum(us is None for us in timed.values())
                missing = f", without {absent} of {len(names)} layers" if absent else ""
                yield f"{net} batch {batch}, {candidate}: {total / 1e3:.2f} ms{missing}"

"""Times nets with fewer channels beside the whole ones, both fused, interleaved, in fp32.

python bench/channels.py mobilenet_v2
python bench/channels.py resnet50 mobilenet_v2 --sparsity 0.3,0.5 --batch 1,8 --threads 1,2
python bench/channels.py mobilenet_v2 --macs 0.4 --round-to 16

Faster: median over rounds of whole / smaller. Fewer products: multiply-accumulates of the whole net
over those of the smaller one. Quotient: the first over the second; 1 where time falls as much.
Results are checked first: the smaller fused net against the smaller one in float64.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from case import UnavailableError, WrongResultError, sqnr_db
from torch import Tensor, nn

import pyops
from pyops.prune import channel_plan, prune_channels
from pyops.testing.machine import busy
from pyops.testing.models import images, mobilenet_v2, resnet
from pyops.testing.models.packages import MissingPackageError

LEAST_DB = 60.0
NETS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2.load_model,
    "resnet50": lambda: resnet.random_model(50),
}


def numbers(text: str) -> list[float]:
    """Return the numbers of "0.3,0.5"."""
    return [float(part) for part in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("nets", nargs="+", choices=list(NETS))
    top.add_argument("--sparsity", type=numbers, help="shares of channels to remove; 0.3,0.5")
    top.add_argument("--macs", type=numbers, help="instead: shares of the products that may stay")
    top.add_argument("--round-to", type=int, help="multiples of channels that stay")
    top.add_argument("--batch", type=numbers, default=[1, 8])
    top.add_argument("--threads", type=numbers, default=[1, 2])
    top.add_argument("--size", type=int, default=224, help="rows and columns of the images")
    top.add_argument("--seconds", type=float, default=2.0, help="for each line of the table")
    return top


@dataclass(frozen=True)
class Smaller:
    """A net with fewer channels, and how many products the whole one has for each of its own."""

    label: str
    model: nn.Module
    fewer: float


def smaller(whole: nn.Module, options: argparse.Namespace) -> list[Smaller]:
    """Return the smaller nets that the options ask for."""
    x = images.synthetic(1, options.size, seed=0)
    keyword, shares = "sparsity", options.sparsity or [0.3, 0.5]
    if options.macs:
        keyword, shares = "macs", options.macs
    found = []
    for share in shares:
        arguments = {keyword: share, "round_to": options.round_to, "example_inputs": x}
        model = prune_channels(whole, **arguments)
        (macs,) = channel_plan(model)["macs"]
        found.append(Smaller(f"{keyword} {share:g}", model, macs["before"] / macs["after"]))
    return found


def check(model: nn.Module, fused: nn.Module, x: Tensor) -> None:
    """Raise WrongResultError where the fused net computes something else."""
    with torch.inference_mode():
        found = sqnr_db(fused(x), copy.deepcopy(model).double()(x.double()))
    if not found >= LEAST_DB:
        raise WrongResultError(f"SQNR is {found:.1f} dB, expected at least {LEAST_DB} dB")


def timed(calls: list[Callable[[], Tensor]], seconds: float) -> list[list[float]]:
    """Return each call's seconds, one of each in every round."""
    for call in calls:
        call(), call()
    found: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not found[0]:
        for call, times in zip(calls, found, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return found


def show(name: str, whole: nn.Module, nets: list[Smaller], options: argparse.Namespace) -> None:
    """Print a line for each batch, number of threads and smaller net."""
    for batch in map(int, options.batch):
        x = images.synthetic(batch, options.size, seed=1)
        models = [whole, *(net.model for net in nets)]
        fused = [pyops.fuse(model, example_inputs=(x,)) for model in models]
        for model, fast in zip(models, fused, strict=True):
            check(model, fast, x)
        for threads in map(int, options.threads):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                calls = [partial(fast, x) for fast in fused]
                first, *others = timed(calls, options.seconds * len(nets))
            for net, times in zip(nets, others, strict=True):
                faster = statistics.median(a / b for a, b in zip(first, times, strict=True))
                print(
                    f"{name:13s}{net.label:14s}{batch:5d}{threads:8d}"
                    f"{1e3 * statistics.median(first):10.2f}{1e3 * statistics.median(times):10.2f}"
                    f"{faster:8.2f}x{net.fewer:8.2f}x{faster / net.fewer:9.2f}",
                    flush=True,
                )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    options = parser().parse_args(arguments)
    if warning := busy():
        print(f"WARNING {warning}")
    print(f"{'net':13s}{'pruned':14s}{'batch':>5s}{'threads':>8s}{'whole ms':>10s}", end="")
    print(f"{'ms':>10s}{'faster':>9s}{'fewer':>9s}{'quotient':>9s}")
    try:
        for name in options.nets:
            whole = images.for_images(NETS[name]())
            show(name, whole, smaller(whole, options), options)
    except (MissingPackageError, UnavailableError, WrongResultError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

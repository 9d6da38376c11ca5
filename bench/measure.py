"""Checks and times one case: ours and the peers, interleaved in this process."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import ModuleType

import torch
from case import Call, Case, UnavailableError, WrongResultError
from roofline import Roofline

from pyops import backends
from pyops.testing.timing import Timing, interleave, ratio

OURS = "pyops"


@dataclass(frozen=True)
class Row:
    """One candidate on one case. Times are None where it was not timed; ``reason`` says why.

    ``ours_faster`` is the median over the rounds of its time / our time. ``limit_share`` is the
    roofline's least time / our median, ``bound`` what binds there.
    """

    case: str
    candidate: str
    kernel: str | None = None
    median_us: float | None = None
    p10_us: float | None = None
    gops: float | None = None
    gbs: float | None = None
    limit_share: float | None = None
    bound: str | None = None
    ours_faster: float | None = None
    refused: bool = False
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the row as plain data."""
        return asdict(self)


def discover(package: str) -> dict[str, ModuleType]:
    """Import every module of ``ops``, ``models`` or ``peers`` and return them by name."""
    folder = importlib.import_module(package)
    names = sorted(info.name for info in pkgutil.iter_modules(folder.__path__))
    return {name: importlib.import_module(f"{package}.{name}") for name in names}


def find(target: str) -> ModuleType:
    """Return the bench called ``target``.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    benches = {**discover("ops"), **discover("models")}
    if target not in benches:
        raise ValueError(f"no bench {target!r}; there are {', '.join(benches)}")
    return benches[target]


def peers_for(case: Case, slow: bool) -> Iterator[ModuleType]:
    """Yield the peers that compute cases of this kind; slow ones only when asked."""
    for peer in discover("peers").values():
        if case.kind in peer.KINDS and (slow or not peer.SLOW):
            yield peer


@torch.inference_mode()
def measure(
    case: Case, peers: list[ModuleType], seconds: float, roofline: Roofline | None
) -> list[Row]:
    """Return our row, then the peers'. Nothing is timed when our result is wrong."""
    kernel = case.kernel or (backends.kernel(case.op) if case.op else None)
    ours = case.make_ours()
    try:
        case.check_ours(ours())
    except WrongResultError as error:
        return [Row(case.name, OURS, kernel, refused=True, reason=f"wrong result: {error}")]
    calls: dict[str, Call] = {OURS: ours}
    rejected = []
    for peer in peers:
        try:
            call = prepare(peer, case)
        except UnavailableError as error:
            rejected.append(Row(case.name, peer.NAME, reason=str(error)))
        except WrongResultError as error:
            reason = f"wrong result: {error}"
            rejected.append(Row(case.name, peer.NAME, refused=True, reason=reason))
        else:
            calls[peer.NAME] = call
    timings = interleave(calls, seconds=seconds)
    timed = [timed_row(case, name, timings, kernel, roofline) for name in calls]
    return timed + rejected


def prepare(peer: ModuleType, case: Case) -> Call:
    """Return the peer's call after checking its result.

    Raises:
        UnavailableError: it is absent or fails.
        WrongResultError: it computes something else.
    """
    try:
        call = peer.make(case)
        result = call()
    except UnavailableError:
        raise
    except (RuntimeError, TypeError, ValueError, NotImplementedError, ImportError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UnavailableError(f"{type(error).__name__}: {first}") from error
    case.check_peer(result)
    return call


def timed_row(
    case: Case,
    name: str,
    timings: dict[str, Timing],
    kernel: str | None,
    roofline: Roofline | None,
) -> Row:
    """Return the row of candidate ``name``; the share of the roofline for ours only."""
    median = timings[name].median
    mine = name == OURS
    limit = None
    if mine and roofline is not None and kernel is not None and case.kind != "model":
        isa = isa_of(case.op, kernel)
        limit = roofline.limit(isa, case.operations, case.bytes_moved, case.peak)
    return Row(
        case.name,
        name,
        kernel if mine else None,
        median * 1e6,
        timings[name].percentile(10) * 1e6,
        case.operations / median / 1e9,
        case.bytes_moved / median / 1e9,
        limit[0] / median if limit else None,
        limit[1] if limit else None,
        ratio(timings[name], timings[OURS]),
    )


def isa_of(op: str | None, kernel: str) -> str:
    """Return the ISA level of the kernel ``kernel``; "reference" without a compiled module."""
    rows = backends.implementations(op) if op else ()
    return next((row.isa for row in rows if row.name == kernel), kernel)

"""Checks and times cases: ours and the peers, interleaved in this process."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from types import ModuleType

import torch
from case import Call, Case, UnavailableError, WrongResultError
from kernels import isa_of, ran
from roofline import PEAK_OF_ISA, Peaks, Roofline
from torch import Tensor

from pyops import backends
from pyops.testing.machine import LEAST_IDLE, cpu_use, others_share, wait_until_idle
from pyops.testing.timing import Name, Timing, interleave, ratio

OURS = "pyops"
PEAK = -1  # in place of a case
MOST_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Row:
    """One candidate on one case. Times are None where it was not timed; ``reason`` says why.

    ``ours_faster`` is the median over the rounds of its time / our time. ``mine``: a call of ours.
    Of our rows, ``kernel`` is what ran, ``peak_share`` our GOP/s / those of its instruction alone
    on as many threads, the median over the rounds, ``limit_share`` the roofline's least time / our
    median, ``bound`` what binds it.
    ``others_share``: how much of all CPUs other processes used meanwhile.
    """

    case: str
    candidate: str
    threads: int
    kernel: str | None = None
    median_us: float | None = None
    p10_us: float | None = None
    gops: float | None = None
    gbs: float | None = None
    peak_share: float | None = None
    limit_share: float | None = None
    bound: str | None = None
    ours_faster: float | None = None
    mine: bool = False
    quality: dict[str, float] = field(default_factory=dict)
    others_share: float | None = None
    refused: bool = False
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the row as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Schedule:
    """How long to time: ``seconds`` for a group of cases, or ``runs`` bursts of that length.

    ``tries``: how often at most, when others used the CPUs meanwhile; the quietest try counts.
    """

    seconds: float
    runs: int | None = None
    tries: int = 1


@dataclass
class Prepared:
    """A case with the calls that gave a right result, and the rows of what is not timed."""

    case: Case
    calls: dict[str, Call] = field(default_factory=dict)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    mine: set[str] = field(default_factory=set)
    own_threads: bool = False
    rejected: list[Row] = field(default_factory=list)

    @cached_property
    def kernels(self) -> list[str]:
        """The kernels that the products run on; without products, the op's active one."""
        case = self.case
        if case.op is None:
            return []
        if not case.products:
            return [case.kernel or backends.kernel(case.op)]
        return list(dict.fromkeys(ran(case.op, weight, rows) for weight, rows in case.products))

    @cached_property
    def peak(self) -> str:
        """The name of the peak that bounds the case; "" where kernels have different ones."""
        kernels = self.kernels
        if len(kernels) != 1:
            return ""
        return self.case.peak or PEAK_OF_ISA.get(isa_of(self.case.op, kernels[0]), "")


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
    cases: list[Case],
    peers: list[ModuleType],
    schedule: Schedule,
    roofline: Roofline | None,
    slow: bool = False,
    peaks: Peaks | None = None,
) -> list[Row]:
    """Return our row of each case, then the peers'; all calls of all cases are interleaved.

    Nothing of a case is timed when our result is wrong; where ours is absent, the peers are.
    ``slow``: also our variants. With ``peaks`` the instructions alone run in the same rounds.
    """
    prepared = [prepare(case, peers, slow) for case in cases]
    calls: dict[tuple[int, str], Callable[[], object]] = {
        (at, name): call for at, p in enumerate(prepared) for name, call in p.calls.items()
    }
    if not calls:
        return [row for p in prepared for row in p.rejected]
    bursts = bursts_of(prepared, peaks) if peaks else {}
    alone = {(PEAK, name): call for name, (call, _) in bursts.items()}
    calls |= alone
    timings, others = quietest(calls, schedule, any(p.own_threads for p in prepared), alone)
    rows = []
    for at, p in enumerate(prepared):
        mine = {name: timings[at, name] for name in p.calls}
        timed = [timed_row(p, name, mine, roofline) for name in p.calls]
        if OURS in mine and p.peak in bursts:
            share = p.case.operations / bursts[p.peak][1]
            share *= ratio(timings[PEAK, p.peak], mine[OURS])
            timed[0] = replace(timed[0], peak_share=share)
        rows += [replace(row, others_share=others) for row in timed] + p.rejected
    return rows


def bursts_of(
    prepared: list[Prepared], peaks: Peaks
) -> dict[str, tuple[Callable[[], object], float]]:
    """Return calls of the instructions that bound these cases, and their operations, by name."""
    names = dict.fromkeys(p.peak for p in prepared if p.calls and p.peak)
    bursts = {name: peaks.burst(name, torch.get_num_threads()) for name in names}
    return {name: burst for name, burst in bursts.items() if burst}


def quietest(
    calls: dict[Name, Callable[[], object]],
    schedule: Schedule,
    settle: bool,
    foreign: Collection[Name] = (),
) -> tuple[dict[Name, Timing], float]:
    """Time the calls, again after a wait where others used the CPUs; return the quietest try."""
    found = []
    for attempt in range(schedule.tries):
        if attempt:
            wait_until_idle(MOST_WAIT_SECONDS)
        before = cpu_use()
        timings = interleave(
            calls,
            seconds=schedule.seconds,
            runs=schedule.runs,
            settle=settle,
            foreign=foreign,
        )
        found.append((timings, others_share(before, cpu_use()) or 0.0))
        if found[-1][1] <= 1 - LEAST_IDLE:
            break
    return min(found, key=lambda each: each[1])


def prepare(case: Case, peers: list[ModuleType], slow: bool) -> Prepared:
    """Return the calls whose results were found right, and why others were not."""
    variants = case.variants if slow else {}
    out = Prepared(case, mine={OURS, *variants})
    try:
        add(out, OURS, case.make_ours(), case.check_ours)
    except WrongResultError as error:
        out.rejected.append(rejection(out, OURS, error))
        return out
    except UnavailableError as error:
        out.rejected.append(rejection(out, OURS, error))
    candidates = {name: (make, case.check_ours) for name, make in variants.items()}
    for peer in peers:
        candidates[peer.NAME] = (lambda peer=peer: peer.make(case), case.check_peer)
    for name, (make, check) in candidates.items():
        try:
            add(out, name, make(), check)
        except (UnavailableError, WrongResultError) as error:
            out.rejected.append(rejection(out, name, error))
        except (RuntimeError, TypeError, ValueError, NotImplementedError, ImportError) as error:
            first = (str(error).splitlines() or [""])[0]
            reason = UnavailableError(f"{type(error).__name__}: {first}")
            out.rejected.append(rejection(out, name, reason))
    own_threads = {peer.NAME for peer in peers if getattr(peer, "OWN_THREADS", False)}
    out.own_threads = bool(own_threads & set(out.calls))
    return out


def add(out: Prepared, name: str, call: Call, check: Callable[[Tensor], None]) -> None:
    """Take ``call`` as a candidate.

    Raises:
        WrongResultError: it computes something else.
    """
    result = call()
    check(result)
    out.calls[name] = call
    out.quality[name] = out.case.quality(result) if out.case.quality else {}


def rejection(out: Prepared, name: str, error: Exception) -> Row:
    """Return the row of a candidate that is absent, or refused for a wrong result."""
    refused = isinstance(error, WrongResultError)
    reason = f"wrong result: {error}" if refused else str(error)
    mine, threads = name in out.mine, torch.get_num_threads()
    return Row(out.case.name, name, threads, mine=mine, refused=refused, reason=reason)


def timed_row(p: Prepared, name: str, timings: dict[str, Timing], roofline: Roofline | None) -> Row:
    """Return the row of candidate ``name``; kernel and shares for ours only."""
    case, median = p.case, timings[name].median
    limit = None
    if roofline is not None and name == OURS:
        limit = roofline.limit(p.peak, case.operations, case.bytes_moved)
    return Row(
        case.name,
        name,
        torch.get_num_threads(),
        kernel="+".join(p.kernels) or None if name == OURS else None,
        median_us=median * 1e6,
        p10_us=timings[name].percentile(10) * 1e6,
        gops=case.operations / median / 1e9,
        gbs=case.bytes_moved / median / 1e9,
        limit_share=limit[0] / median if limit else None,
        bound=limit[1] if limit else None,
        ours_faster=ratio(timings[name], timings[OURS]) if OURS in timings else None,
        mine=name in p.mine,
        quality=p.quality[name],
    )

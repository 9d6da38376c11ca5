"""Times our kernels and models against their peers on this machine.

python bench/run.py int8_gemm --peers
python bench/run.py minilm --peers --slow --peer-isa vnni --isa avx512vnni --json now.json
python bench/run.py resnet50 --peers --batch 1,8 --threads 2
python bench/run.py resnet50 --layers
python bench/run.py sparse_gemm --breakeven
python bench/run.py int8_scaling --peers --only-peers torch.ao --threads 1,2 --plot out.png
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import caps


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("target", help="an op or a model: a file of bench/ops or bench/models")
    top.add_argument("--peers", action="store_true", help="time the peers too, interleaved")
    top.add_argument("--slow", action="store_true", help="also peers that take long to prepare")
    top.add_argument("--isa", help="cap our kernels at this level")
    top.add_argument("--peer-isa", choices=list(caps.CAPS), default="native", help="cap the peers")
    top.add_argument("--only-peers", default="", help="only peers whose name contains this")
    top.add_argument("--threads", type=counts, help="threads of everybody; 1,2 runs with each")
    top.add_argument(
        "--shapes", choices=("main", "odd", "few", "small", "all", "tiny"), default="main"
    )
    top.add_argument("--batch", type=counts, help="of a convnet, such as 1,8")
    top.add_argument(
        "--layers", action="store_true", help="of a convnet: time each convolution instead"
    )
    top.add_argument(
        "--breakeven",
        action="store_true",
        help="of sparse weights: print the share of zeros from which on they pay",
    )
    top.add_argument("--only", default="", help="only cases whose name contains this")
    top.add_argument(
        "--seconds", type=float, default=2.0, help="time per case, all candidates; see --runs"
    )
    top.add_argument("--runs", type=int, help="runs of each candidate, of --seconds each")
    top.add_argument(
        "--tries", type=int, default=1, help="time a case again when others used the CPUs meanwhile"
    )
    top.add_argument("--no-roofline", action="store_true", help="do not measure the peaks")
    top.add_argument("--json", type=Path, metavar="OUT", help="write all numbers")
    top.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw it; OUT-1.png for 1 of several threads"
    )
    top.add_argument("--compare", type=Path, metavar="BASE.json", help="an earlier --json")
    top.add_argument(
        "--threshold", type=float, default=1.1, help="--compare fails when slower than this"
    )
    return top


def counts(text: str) -> list[int]:
    """Return the numbers of "1,2".

    Raises:
        ValueError: one is not a positive integer.
    """
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(f"wants positive numbers, got {text}")
    return numbers


def commit() -> str:
    """Return the commit of the checkout, with "+changes" when it is not clean."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+changes"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit status: 1 for a wrong result or a regression."""
    options = parser().parse_args(arguments)
    caps.enforce(options.peer_isa)
    # torch reads the caps when it is loaded, so it is loaded after them.
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=240)
    try:
        return run(options, console)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace, console: Any) -> int:
    """Measure what ``options`` ask for, print it, write it, compare it."""
    import plot
    import torch

    from pyops import isa
    from pyops.demo.show import facts_table
    from pyops.testing.machine import busy, facts

    if options.plot:
        plot.pyplot()
    bench = bench_of(options)
    thread_counts = options.threads or [torch.get_num_threads()]
    torch.set_num_threads(max(thread_counts))
    rows: list[Any] = []
    with isa.force(options.isa) if options.isa else contextlib.nullcontext():
        machine = {**facts(), "commit": commit(), "command": shlex.join(sys.argv)}
        facts_table(machine, console)
        if warning := busy():
            console.print(f"[bold]WARNING[/bold] {warning}")
        if options.breakeven:
            import breakeven

            return breakeven.show(bench, options.shapes, options.seconds, console)
        rooflines, peaks = measure_rooflines(thread_counts, options, console)
        for threads in thread_counts:
            torch.set_num_threads(threads)
            rows += measure_cases(bench, options, rooflines.get(threads), peaks, console)
    machine["threads"] = ",".join(map(str, thread_counts))
    result = {
        "machine": machine,
        "rooflines": [vars(roofline) for roofline in rooflines.values()],
        "rows": [row.to_json() for row in rows],
    }
    status = int(any(row.refused and row.mine for row in rows))
    return report(bench, result, rows, options, console) or status


def measure_rooflines(
    thread_counts: list[int], options: argparse.Namespace, console: Any
) -> tuple[dict[int, Any], Any]:
    """Return the peaks on one thread and on each number of them, and what runs them between calls.

    Empty and None, with the reason printed, where they could not be measured.
    """
    import roofline
    from show import show_rooflines

    from pyops.testing.machine import LEAST_IDLE, cpu_use, others_share

    if options.no_roofline:
        return {}, None
    before = cpu_use()
    try:
        measured = roofline.measure(*sorted({1, *thread_counts}))
        peaks = roofline.Peaks(measured)
    except RuntimeError as error:
        console.print(f"no roofline: {error}", markup=False)
        return {}, None
    show_rooflines(measured, console)
    if (others := others_share(before, cpu_use()) or 0.0) > 1 - LEAST_IDLE:
        console.print(f"[bold]WARNING[/bold] others used {others:.0%} of the CPUs meanwhile")
    return {each.threads: each for each in measured}, peaks


def measure_cases(
    bench: Any, options: argparse.Namespace, roofline: Any, peaks: Any, console: Any
) -> list[Any]:
    """Return the rows of every case of ``bench``, and print them."""
    import torch
    from measure import Schedule, measure
    from show import show_rows, show_summary
    from summary import kind_of

    schedule = Schedule(options.seconds, options.runs, options.tries)
    slow = options.slow or getattr(bench, "SLOW_PEERS", False)
    chosen = [case for case in cases_of(bench, options) if options.only in case.name]
    if not chosen:
        raise ValueError(f"no case of {options.target} has {options.only!r} in its name")
    rows: list[Any] = []
    for group in [chosen] if getattr(bench, "TOGETHER", False) else [[case] for case in chosen]:
        with console.status(group[0].name):
            peers = peers_of(group[0], slow, options)
            rows += measure(group, peers, schedule, roofline, options.slow, peaks)
    console.rule(f"{torch.get_num_threads()} thread(s)")
    show_rows(rows, console)
    show_summary(rows, {kind_of(case.name): case.rivals for case in chosen}, console)
    for line in bench.conclude(rows) if hasattr(bench, "conclude") else []:
        console.print(line, markup=False)
    return rows


def bench_of(options: argparse.Namespace) -> Any:
    """Return the bench that ``options`` ask for: that of the target, or of the target's layers.

    Raises:
        ValueError: there is none, or it has no batches or layers, and options want some.
    """
    from measure import find

    bench = find(options.target)
    if options.batch and "batches" not in signature(bench.cases).parameters:
        raise ValueError(f"{options.target} is no convnet, so it has no --batch")
    if options.layers and not hasattr(bench, "net"):
        raise ValueError(f"{options.target} has no net() whose layers --layers could time")
    if not options.layers:
        return bench
    from layers import Layers

    return Layers(bench.net(), tuple(options.batch) if options.batch else None)


def peers_of(case: Any, slow: bool, options: argparse.Namespace) -> list[Any]:
    """Return the peers to time: without --peers none, of layers those in float."""
    from measure import peers_for

    peers = [peer for peer in peers_for(case, slow) if options.only_peers in peer.NAME]
    if options.peers:
        return peers
    return [peer for peer in peers if options.layers and getattr(peer, "FLOAT", False)]


def cases_of(bench: Any, options: argparse.Namespace) -> Iterator[Any]:
    """Return the cases that ``options`` ask for."""
    if options.batch and not options.layers:
        return bench.cases(options.shapes, tuple(options.batch))
    return bench.cases(options.shapes)


def report(
    bench: Any, result: dict[str, Any], rows: list[Any], options: argparse.Namespace, console: Any
) -> int:
    """Write the files, compare; return the exit status: 1 after a regression."""
    import compare
    import plot
    from show import show_changes

    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        draw = getattr(bench, "plot", plot.plot)
        counts_run = list(dict.fromkeys(row.threads for row in rows))
        for threads in counts_run:
            title = f"{options.target}, {threads} thread(s), {result['machine']['processor']}"
            own = f"{options.plot.stem}-{threads}{options.plot.suffix}"
            file = options.plot.with_name(own) if len(counts_run) > 1 else options.plot
            draw([row for row in rows if row.threads == threads], title, file)
    if not options.compare:
        return 0
    base = json.loads(options.compare.read_text())
    for line in compare.differences(base, result):
        console.print(f"[bold]WARNING[/bold] not the same circumstances: {line}")
    found = compare.changes(base, result)
    show_changes(found, options.threshold, console)
    return int(bool(compare.regressions(found, options.threshold)))


if __name__ == "__main__":
    sys.exit(main())

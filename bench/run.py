"""Times our kernels and models against their peers on this machine.

python bench/run.py int8_gemm --peers
python bench/run.py minilm --peers --peer-isa vnni --isa avx512vnni --json now.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
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
    top.add_argument("--threads", type=int, help="threads of torch, ours included")
    top.add_argument("--shapes", choices=("main", "odd", "small", "all", "tiny"), default="main")
    top.add_argument("--only", default="", help="only cases whose name contains this")
    top.add_argument("--seconds", type=float, default=2.0, help="time per case, all candidates")
    top.add_argument("--no-roofline", action="store_true", help="do not measure the peaks")
    top.add_argument("--json", type=Path, metavar="OUT", help="write all numbers")
    top.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the ratios")
    top.add_argument("--compare", type=Path, metavar="BASE.json", help="an earlier --json")
    top.add_argument(
        "--threshold", type=float, default=1.1, help="--compare fails when slower than this"
    )
    return top


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

    console = Console() if sys.stdout.isatty() else Console(width=200)
    try:
        return run(options, console)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace, console: Any) -> int:
    """Measure what ``options`` ask for, print it, write it, compare it."""
    import plot
    import torch
    from measure import find

    from pyops import isa
    from pyops.demo.show import facts_table
    from pyops.testing.machine import busy, facts

    if options.plot:
        plot.pyplot()
    bench = find(options.target)
    if options.threads:
        torch.set_num_threads(options.threads)
    with isa.force(options.isa) if options.isa else contextlib.nullcontext():
        machine = {**facts(), "commit": commit(), "command": shlex.join(sys.argv)}
        facts_table(machine, console)
        if warning := busy():
            console.print(f"[bold]WARNING[/bold] {warning}")
        rooflines = measure_rooflines(options, console)
        rows = measure_cases(bench, options, rooflines, console)
    result = {
        "machine": machine,
        "rooflines": [vars(roofline) for roofline in rooflines],
        "rows": [row.to_json() for row in rows],
    }
    return report(result, rows, options, console)


def measure_rooflines(options: argparse.Namespace, console: Any) -> list[Any]:
    """Return the peaks on one thread and on all, the last; empty with the reason printed."""
    import roofline
    import torch
    from show import show_rooflines

    if options.no_roofline:
        return []
    try:
        measured = roofline.measure(*sorted({1, torch.get_num_threads()}))
    except RuntimeError as error:
        console.print(f"no roofline: {error}", markup=False)
        return []
    show_rooflines(measured, console)
    return measured


def measure_cases(
    bench: Any, options: argparse.Namespace, rooflines: list[Any], console: Any
) -> list[Any]:
    """Return the rows of every case of ``bench``."""
    from measure import measure, peers_for

    roofline = rooflines[-1] if rooflines else None
    rows: list[Any] = []
    for case in bench.cases(options.shapes):
        if options.only in case.name:
            with console.status(case.name):
                peers = list(peers_for(case, options.slow)) if options.peers else []
                rows += measure(case, peers, options.seconds, roofline)
    if not rows:
        raise ValueError(f"no case of {options.target} has {options.only!r} in its name")
    return rows


def report(
    result: dict[str, Any], rows: list[Any], options: argparse.Namespace, console: Any
) -> int:
    """Print the tables, write the files, compare; return the exit status."""
    import compare
    import plot
    from measure import OURS
    from show import show_changes, show_rows

    show_rows(rows, console)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot.plot(rows, f"{options.target} on {result['machine']['processor']}", options.plot)
    status = int(any(row.refused and row.candidate == OURS for row in rows))
    if options.compare:
        base = json.loads(options.compare.read_text())
        for line in compare.differences(base, result):
            console.print(f"[bold]WARNING[/bold] not the same circumstances: {line}")
        found = compare.changes(base, result)
        show_changes(found, options.threshold, console)
        status = status or int(bool(compare.regressions(found, options.threshold)))
    return status


if __name__ == "__main__":
    sys.exit(main())

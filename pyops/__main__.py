"""``python -m pyops info`` and ``python -m pyops demo``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .demo import info, jobs, measure, plot, show
from .testing.machine import busy
from .testing.models.packages import MissingPackageError

# Piped output has no width of its own; the widest table needs these columns.
WIDTH = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name and return the exit status."""
    options = parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    try:
        return int(options.run(options, console))
    except (MissingPackageError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"pyops {options.command}: {error}\n")
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m pyops", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    about = commands.add_parser("info", help="what is built and what runs on this machine")
    about.add_argument("--json", type=Path, metavar="FILE", help="also write the facts to FILE")
    about.set_defaults(run=run_info)
    demo = commands.add_parser("demo", help="int8 on a trained model: size, speed, accuracy")
    demo.add_argument("--model", choices=sorted(jobs.JOBS), default="digits")
    demo.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    demo.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the speed-ups")
    demo.add_argument(
        "--quick", action="store_true", help="a tenth of the time; the numbers are rough"
    )
    demo.set_defaults(run=run_demo)
    return top


def run_info(options: argparse.Namespace, console: Console) -> int:
    """Print the facts and write them where asked."""
    facts = info.collect()
    info.show(facts, console)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


def run_demo(options: argparse.Namespace, console: Console) -> int:
    """Measure, print, and write the numbers and the plot where asked."""
    if options.plot:
        plot.pyplot()  # a missing matplotlib should not cost a minute of measuring first
    job = jobs.JOBS[options.model]()
    warning = busy()
    with console.status("measuring, interleaved, for about half a minute"):
        result = measure.run(job, scale=0.1 if options.quick else 1.0)
    show.show(result, console)
    if warning:
        console.print(f"[bold]Note[/bold]: {warning}")
    if options.json:
        report = json.loads(result["explain"].to_json())
        options.json.write_text(json.dumps({**result, "explain": report}, indent=2) + "\n")
    if options.plot:
        plot.plot(result, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

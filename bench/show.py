"""Prints the rows of a run as one table per kind of case."""

from __future__ import annotations

from compare import Change
from measure import OURS, Row
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from roofline import Roofline


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Return ``value`` for a cell, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def rows_table(rows: list[Row]) -> Table:
    """Return a table with a line per case and a column per peer."""
    table = Table(caption="peers: microseconds, and how many times faster ours is")
    table.caption_justify = "left"
    peers = list(dict.fromkeys(row.candidate for row in rows if row.candidate != OURS))
    for heading in ("case", "kernel"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ours us", "p10", "GOP/s", "GB/s", "of limit", "bound", *peers):
        table.add_column(heading, justify="right")
    for case in dict.fromkeys(row.case for row in rows):
        by_name = {row.candidate: row for row in rows if row.case == case}
        ours = by_name[OURS]
        share = None if ours.limit_share is None else 100 * ours.limit_share
        table.add_row(
            case,
            ours.kernel or "-",
            "REFUSED" if ours.refused else number(ours.median_us),
            number(ours.p10_us),
            number(ours.gops),
            number(ours.gbs),
            number(share, 0, "%"),
            ours.bound or "-",
            *(peer_cell(by_name.get(peer)) for peer in peers),
        )
    return table


def peer_cell(row: Row | None) -> str:
    """Return time and ratio of a peer, or why there are none."""
    if row is None:
        return "-"
    if row.median_us is None:
        return "refused" if row.refused else "skipped"
    return f"{number(row.median_us)} {number(row.ours_faster, 2, 'x')}"


def reasons(rows: list[Row]) -> list[str]:
    """Return one line per distinct reason for which something was not timed."""
    lines = {}
    for row in rows:
        if row.reason:
            lines.setdefault((row.candidate, row.reason), row.case)
    return [f"{name} not timed ({case}): {why}" for (name, why), case in lines.items()]


def show_rows(rows: list[Row], console: Console) -> None:
    """Print the tables and the reasons."""
    kinds = dict.fromkeys(row.case.rpartition(" ")[0] for row in rows)
    for kind in kinds:
        console.print(rows_table([row for row in rows if row.case.rpartition(" ")[0] == kind]))
    for line in reasons(rows):
        console.print(escape(line))


def show_rooflines(rooflines: list[Roofline], console: Console) -> None:
    """Print the measured peaks, a column per number of threads."""
    table = Table(title="Measured peaks: GOP/s of instructions, GB/s of reads")
    table.add_column("peak")
    for roofline in rooflines:
        table.add_column(f"{roofline.threads} thread(s)", justify="right")
    names = dict.fromkeys(name for each in rooflines for name in (*each.values, *each.reasons))
    for name in names:
        cells = [number(each.values.get(name)) for each in rooflines]
        why = next((each.reasons[name] for each in rooflines if name in each.reasons), "")
        if not name.startswith("cache_"):
            table.add_row(name, *([why] * len(cells) if why else cells))
    console.print(table)


def show_changes(found: list[Change], threshold: float, console: Console) -> None:
    """Print our time now against then, a line per case."""
    table = Table(title=f"Against the base: slower is more than {threshold}x")
    for heading in ("case", "before us", "now us", "now/before", ""):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for change in found:
        verdict = "SLOWER" if change.ratio > threshold else ""
        numbers = (number(change.before_us), number(change.now_us), number(change.ratio, 2, "x"))
        table.add_row(change.case, *numbers, verdict)
    console.print(table)

"""Prints the rows of a run as one table per kind of case."""

from __future__ import annotations

from collections.abc import Mapping

from compare import Change
from measure import OURS, Row
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from roofline import Roofline
from summary import Rivals, kind_of, shares, summarize

from pyops.testing.machine import LEAST_IDLE


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Return ``value`` for a cell, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def percent(share: float | None) -> str:
    """Return a share for a cell."""
    return "-" if share is None else f"{share:.0%}"


def rows_table(rows: list[Row]) -> Table:
    """Return a table with a line per case and a column per peer."""
    table = Table(caption="peers: microseconds, and how many times faster ours is")
    table.caption_justify = "left"
    peers = list(dict.fromkeys(row.candidate for row in rows if row.candidate != OURS))
    for heading in ("case", "kernel"):
        table.add_column(heading, no_wrap=True)
    measured = ("ours us", "p10", "GOP/s", "GB/s", "of peak", "of roofline", "bound")
    for heading in (*measured, *peers):
        table.add_column(heading, justify="right")
    for case in dict.fromkeys(row.case for row in rows):
        by_name = {row.candidate: row for row in rows if row.case == case}
        ours = by_name[OURS]
        table.add_row(
            case,
            ours.kernel or "-",
            "REFUSED" if ours.refused else "absent" if ours.reason else number(ours.median_us),
            number(ours.p10_us),
            number(ours.gops),
            number(ours.gbs),
            percent(ours.peak_share),
            percent(ours.limit_share),
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
    faster = "" if row.ours_faster is None else f" {row.ours_faster:,.2f}x"
    return f"{number(row.median_us)}{faster}"


def quality_table(case: str, rows: list[Row]) -> Table:
    """Return a table of one case with a line per candidate: time and quality side by side."""
    table = Table(title=case, title_justify="left")
    table.add_column("candidate", no_wrap=True)
    names = list(dict.fromkeys(name for row in rows for name in row.quality))
    for heading in ("ms", "p10", "ours faster", *names):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [None if t is None else t / 1e3 for t in (row.median_us, row.p10_us)]
        missing = "refused" if row.refused else "skipped"
        table.add_row(
            f"{row.candidate} ({row.kernel})" if row.kernel else row.candidate,
            missing if times[0] is None else number(times[0], 3),
            number(times[1], 3),
            number(row.ours_faster, 2, "x"),
            *(number(row.quality.get(name), 4) for name in names),
        )
    return table


def reasons(rows: list[Row]) -> list[str]:
    """Return one line per distinct reason for which something was not timed."""
    lines = {}
    for row in rows:
        if row.reason:
            lines.setdefault((row.candidate, row.reason), row.case)
    return [f"{name} not timed ({case}): {why}" for (name, why), case in lines.items()]


def disturbances(rows: list[Row]) -> str:
    """Return the cases during which others used the CPUs, and how much; "" where there are none."""
    found = {
        row.case: row.others_share
        for row in rows
        if row.others_share is not None and row.others_share > 1 - LEAST_IDLE
    }
    cases = ", ".join(f"{escape(case)} ({share:.0%})" for case, share in found.items())
    return f"these cases, during which others used the CPUs: {cases}" if cases else ""


def show_rows(rows: list[Row], console: Console) -> None:
    """Print the tables and the reasons."""
    for kind in dict.fromkeys(kind_of(row.case) for row in rows):
        mine = [row for row in rows if kind_of(row.case) == kind]
        if not any(row.quality for row in mine):
            console.print(rows_table(mine))
            continue
        for case in dict.fromkeys(row.case for row in mine):
            console.print(quality_table(case, [row for row in mine if row.case == case]))
    for line in reasons(rows):
        console.print(escape(line), soft_wrap=True)
    if disturbed := disturbances(rows):
        console.print(f"[bold]WARNING[/bold] do not quote {disturbed}", soft_wrap=True)


def show_summary(rows: list[Row], rivals: Mapping[str, Rivals], console: Console) -> None:
    """Print ours against the fastest rival of each case, and the share of the peak."""
    for line in (*summarize(rows, rivals), *shares(rows)):
        console.print(str(line), markup=False, soft_wrap=True)


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

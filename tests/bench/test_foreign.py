"""Peers in another process: what is asked and answered, and what happens when it fails."""

from __future__ import annotations

import gc
import stat
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

# Adds the number of runs to the sums of its images, prints as DeepSparse does, and dies when asked.
FAKE_ENGINE = """
import os

class Engine:
    def __init__(self, model, batch_size, num_cores):
        self.model, self.batch, self.runs = open(model).read(), batch_size, 0
        os.write(1, b"DeepSparse, Copyright\\n")

    def run(self, inputs, val_inp=True):
        (x,) = inputs
        assert self.model == "a model" and len(x) == self.batch and x.flags.c_contiguous
        self.runs += 1
        print("a line on the standard output")
        if self.runs == 3 and x.max() > 1e6:
            os.write(2, b"out of luck\\n\\n")
            os._exit(3)
        if self.runs == 3 and x.max() > 1e5:
            raise RuntimeError("too large")
        return [x.sum((2, 3)) + self.runs]
"""
FAKE_CPU = """
from types import SimpleNamespace

def cpu_architecture():
    return SimpleNamespace(num_available_physical_cores=2)
"""
# An interpreter that finds the fake package, where the real one is isolated.
FAKE_PYTHON = """#!/bin/sh
test "$1" = -I || exit 9
shift
PYTHONPATH='{folder}' exec '{python}' "$@"
"""


@pytest.fixture
def peer(load: Any) -> ModuleType:
    """The peer's module."""
    return load("peers.deepsparse")


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter whose DeepSparse is the fake one."""
    package = tmp_path / "site" / "deepsparse"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE_ENGINE)
    (package / "cpu.py").write_text(FAKE_CPU)
    folder = str(package.parent)
    return program(tmp_path, FAKE_PYTHON.format(python=sys.executable, folder=folder))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The file of a model."""
    file = tmp_path / "model.onnx"
    file.write_text("a model")
    return file


def program(folder: Path, text: str) -> str:
    file = folder / "python"
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    return str(file)


def images(scale: float = 1.0) -> torch.Tensor:
    x = scale * torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def test_every_request_runs_the_model_into_one_tensor(
    load: Any, peer: ModuleType, python: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = load("models.resnet18").net().case("fp32", 2, 32)
    (x,) = case.inputs
    monkeypatch.setenv(peer.VARIABLE, python)
    monkeypatch.setattr(peer, "require", lambda packages: None)
    monkeypatch.setattr(peer.onnxruntime_runs, "file_of", lambda case, convert: model)
    call = peer.make(case)
    sums = x.double().sum((2, 3))
    for run in (2, 3, 4):  # the first was the worker's own, for the shape of the output
        out = call()
        assert 0 < call.seconds < 1
        assert out.dtype == torch.float32
        assert out.shape == (2, 3)
        torch.testing.assert_close(out.double(), sums + run, rtol=1e-5, atol=1e-2)


def test_a_request_costs_little_beside_the_run(
    load: Any, peer: ModuleType, python: str, model: Path
) -> None:
    worker = load("foreign").Worker(python, peer.SCRIPT, peer.VARIABLES)
    peer.started(worker, model, (images(),))
    beside = []
    for _ in range(50):
        start = time.perf_counter()
        seconds = worker.ask({})["seconds"]
        beside.append(time.perf_counter() - start - seconds)
    assert seconds > 0
    assert 0 < min(beside) < 1e-3


def test_threads_that_deepsparse_has_not_are_refused(
    load: Any, peer: ModuleType, python: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    worker = load("foreign").Worker(python, peer.SCRIPT, peer.VARIABLES)
    with pytest.raises(load("case").UnavailableError, match="3 threads, but DeepSparse has one a"):
        peer.started(worker, model, (images(),))


@pytest.mark.parametrize(
    ("scale", "message"),
    [(1e7, "ended with status 3: out of luck"), (1e5, "RuntimeError: too large")],
)
def test_failures_come_with_their_reason(
    scale: float, message: str, load: Any, peer: ModuleType, python: str, model: Path
) -> None:
    worker = load("foreign").Worker(python, peer.SCRIPT, peer.VARIABLES)
    peer.started(worker, model, (images(scale),))
    worker.ask({})
    with pytest.raises(load("case").UnavailableError, match=message):
        worker.ask({})


def test_a_worker_that_ended_stays_so(load: Any, tmp_path: Path) -> None:
    python = program(tmp_path, "#!/bin/sh\nread line\necho no json\nread line\necho over >&2\n")
    worker = load("foreign").Worker(python, tmp_path / "unread.py", {})
    unavailable = load("case").UnavailableError
    with pytest.raises(unavailable, match=r"answered b'no json.*expected a line of JSON"):
        worker.ask({})
    for _ in range(2):
        with pytest.raises(unavailable, match="ended with status 0: over"):
            worker.ask({})


def test_a_worker_ends_with_its_owner(
    load: Any, peer: ModuleType, python: str, model: Path
) -> None:
    worker = load("foreign").Worker(python, peer.SCRIPT, peer.VARIABLES)
    output = peer.started(worker, model, (images(),))
    process = worker._process
    assert process.poll() is None
    del worker
    gc.collect()
    assert process.returncode == 0
    assert output.isfinite().all()


def test_the_variable_has_to_name_an_interpreter_with_deepsparse(
    load: Any, peer: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    case = load("models.resnet18").net().case("fp32", 1, 32)
    unavailable = load("case").UnavailableError
    monkeypatch.setattr(peer, "require", lambda packages: None)
    monkeypatch.setattr(peer.onnxruntime_runs, "file_of", lambda case, convert: model)
    monkeypatch.delenv(peer.VARIABLE, raising=False)
    with pytest.raises(unavailable, match=f"{peer.VARIABLE} is not set; expected the python"):
        peer.make(case)
    monkeypatch.setenv(peer.VARIABLE, "/nowhere/python")
    with pytest.raises(unavailable, match="/nowhere/python does not start: No such file"):
        peer.make(case)
    monkeypatch.setenv(peer.VARIABLE, sys.executable)
    with pytest.raises(unavailable, match="No module named 'deepsparse'"):
        peer.make(case)


@pytest.mark.slow
def test_deepsparse_computes_the_pruned_net(load: Any, peer: ModuleType) -> None:
    case = next(load("models.pruned_resnet50").cases("tiny"))
    try:
        call = peer.make(case)
    except load("case").UnavailableError as error:
        pytest.skip(str(error))
    case.check_peer(call())
    case.check_peer(call())

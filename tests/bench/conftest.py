"""Makes the modules of bench/ importable, as they are for ``python bench/run.py``."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder bench/, first on sys.path."""
    monkeypatch.syspath_prepend(str(BENCH))
    return BENCH


@pytest.fixture
def load(bench: Path) -> Any:
    """Imports a module of bench/."""
    return importlib.import_module


@pytest.fixture
def run_bench() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python bench/run.py`` with arguments, as a user does."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BENCH / "run.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run

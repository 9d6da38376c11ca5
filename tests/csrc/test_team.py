"""Loops that the threads of one parallel region share, under the thread sanitizer too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SANITIZE = {"plain": [], "threads": ["-fsanitize=thread", "-g"]}


@pytest.mark.parametrize("kind", SANITIZE)
def test_team(build: Callable[..., Path], root: Path, tmp_path: Path, kind: str) -> None:
    """With threads that come late or not at all, and with errors."""
    source = root / "tests" / "csrc" / "team_driver.cpp"
    program = build(tmp_path / "team_driver", [source], *SANITIZE[kind], "-pthread")
    rounds = 2000 if kind == "plain" else 100
    done = subprocess.run([program, str(rounds)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "0 failures\n"

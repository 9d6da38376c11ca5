"""Fixtures of all tests: instruction-set levels, kernels by name, poisoned allocations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pyops
from pyops import backends

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--other-python",
        metavar="PATH",
        help="an interpreter with pytest, hypothesis and another torch >= 2.10: the op tests run"
        " there on the module built here",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give ``kernel`` every row of the kernel table of the op that the test file is named after.

    ``test_<op>.py``, or ``test_<op>_<part>.py``.
    """
    path = Path(metafunc.module.__file__)
    ours = path.parent == ROOT / "tests" / "ops" and not hasattr(metafunc.module, "kernel")
    if "kernel" not in metafunc.fixturenames or not ours:
        return
    stem = path.stem.removeprefix("test_")
    op = max((op for op in backends.ops() if f"{stem}_".startswith(f"{op}_")), key=len, default="")
    if not backends.compiled():
        metafunc.parametrize("kernel", ["reference"], indirect=True)
        return
    rows = [
        pytest.param(
            (op, row.name),
            id=row.name,
            marks=() if row.available else pytest.mark.skip(reason=f"this CPU lacks {row.isa}"),
        )
        for row in backends.implementations(op)
    ]
    metafunc.parametrize("kernel", rows, indirect=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(params=pyops.isa.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction-set level of this CPU, forced and proven active."""
    with pyops.isa.force(request.param):
        assert pyops.isa.active() == request.param
        yield request.param


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every kernel of the op under test that this CPU can run, forced and proven active."""
    if request.param == "reference":
        yield "reference"
        return
    op, name = request.param
    with backends.force(op, name):
        assert backends.kernel(op) == name
        yield name


@pytest.fixture(autouse=True)
def poison(request: pytest.FixtureRequest) -> Iterator[None]:
    """In tests/ops every ``empty`` is filled with NaN or the largest integer, also from C++."""
    if ROOT / "tests" / "ops" not in request.path.parents:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)

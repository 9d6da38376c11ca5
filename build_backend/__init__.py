"""PEP 517 hooks of torch-pyops: setuptools, plus the answer to "which torch do we compile against".

pip builds in an isolated environment where the torch of the target environment can't be imported.
Asking for torch there would download a second copy, so the hooks look for the target's copy on disk
(`torch_dir.py`) and ask for one only when there is none.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import build_meta as _setuptools
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from .plan import make_plan
from .torch_dir import TORCH_FOR_BUILD, find_torch

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def _torch_requirement() -> list[str]:
    if make_plan(os.environ).reason is not None:
        return []  # nothing is compiled, so no headers are needed
    found = find_torch(os.environ)
    if found is None:
        print(f"torch-pyops: no torch in the target environment; building with {TORCH_FOR_BUILD}")
        return [TORCH_FOR_BUILD]
    print(f"torch-pyops: building with torch {found.version} in {found.path}")
    return []


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what setuptools asks for, and a pinned torch if the target environment has none."""
    return [*_setuptools.get_requires_for_build_wheel(config_settings), *_torch_requirement()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Return what setuptools asks for, and a pinned torch if the target environment has none."""
    return [*_setuptools.get_requires_for_build_editable(config_settings), *_torch_requirement()]

"""The build backend as a module, and virtual environments that already have this one's torch."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("build_backend", "csrc", "pyops", "setup.py", "pyproject.toml", "MANIFEST.in")
DOCS = ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
# Not taken over into the new environment: what the installation under test replaces or upgrades.
NOT_LINKED = ("pip", "setuptools", "_distutils_hack", "distutils-precedence", "torch_pyops", "__")


class Venv(NamedTuple):
    """A virtual environment."""

    path: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def site(self) -> Path:
        (packages,) = self.path.glob("lib/python3*/site-packages")
        return packages

    def run(
        self, *args: object, check: bool = True, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run its interpreter; the result's stdout holds both streams."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CXX")}
        done = subprocess.run(
            [str(self.python), *map(str, args)],
            cwd=cwd or self.path,
            env={**inherited, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout
        return done


@pytest.fixture(scope="session")
def build_backend() -> Iterator[ModuleType]:
    """The package ``build_backend``; tests don't have the repository's root on ``sys.path``."""
    name, init = "build_backend", ROOT / "build_backend" / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, init, submodule_search_locations=[str(init.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for key in [k for k in sys.modules if k.partition(".")[0] == name]:
        del sys.modules[key]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources without anything built."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    built = shutil.ignore_patterns("*.so", "_build_info.json", "__pycache__")
    for name in (*SOURCES, *DOCS):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=built)
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture
def new_venv(tmp_path: Path) -> Callable[[], Venv]:
    """Makes an environment that holds every package of this one as links, but not torch-pyops."""

    def make() -> Venv:
        venv = Venv(tmp_path / "venv")
        subprocess.run([sys.executable, "-m", "venv", str(venv.path)], check=True)
        for packages in site.getsitepackages():
            for entry in Path(packages).iterdir():
                link = venv.site / entry.name
                if not entry.name.startswith(NOT_LINKED) and not link.exists():
                    link.symlink_to(entry)
        return venv

    return make


@pytest.fixture
def fake_torch() -> Callable[..., Path]:
    """Makes a directory that looks like an installed torch package."""

    def make(packages: Path, version: str = "2.13.0+cpu", headers: bool = True) -> Path:
        torch = packages / "torch"
        (torch / "lib").mkdir(parents=True)
        (torch / "__init__.py").touch()
        (torch / "version.py").write_text(f"__all__ = []\n__version__ = '{version}'\n")
        if headers:
            (torch / "include/torch/csrc/stable").mkdir(parents=True)
        return torch

    return make


@pytest.fixture
def run_info() -> Callable[[Venv], Mapping[str, object]]:
    """Reads what an installed pyops says about its build, from outside the repository."""

    def read(venv: Venv) -> Mapping[str, object]:
        code = (
            "import json, pyops; from pyops import backends as b; print(json.dumps({'compiled':"
            " b.compiled(), 'why': b.why_not_compiled(), 'info': b.build_info(),"
            " 'file': pyops.__file__, 'isa': pyops.isa.available()}))"
        )
        return dict(json.loads(venv.run("-c", code).stdout.splitlines()[-1]))

    return read

"""setuptools commands: ``build_ext`` compiles csrc, ``build_info`` records how the build went."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from setuptools import Command, Extension
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

from .compile import Build, compile_extension, compiler_version, flags
from .plan import make_plan
from .torch_dir import find_torch

ROOT = Path(__file__).resolve().parent.parent
INFO = "_build_info.json"


class BuildInfo(Command):
    """Write ``pyops/_build_info.json``: what ``python -m pyops info`` says about the build."""

    description = "record compiler, flags and torch of the build, or why nothing was compiled"
    user_options: list[tuple[str, str, str]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        package = self._package()
        package.mkdir(parents=True, exist_ok=True)
        facts = _facts()
        if not facts["compiled"]:
            print(f"torch-pyops: installing without compiled kernels: {facts['reason']}")
            # A module left by an earlier editable build would still be imported.
            for stale in package.glob("_C.*.so"):
                stale.unlink()
        (package / INFO).write_text(json.dumps(facts, indent=1) + "\n")

    def _package(self) -> Path:
        return ROOT / "pyops" if self.editable_mode else Path(str(self.build_lib)) / "pyops"

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return [str(self._package() / INFO)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildWithInfo(build):
    """setuptools' build, and ``build_info`` after it."""

    sub_commands = [*build.sub_commands, ("build_info", None)]


class BuildExt(build_ext):
    """Compiles with our own command lines; see ``compile.py`` for the reason."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11  # here: a Python-only install works without it

        torch = find_torch(os.environ)
        if torch is None:
            raise RuntimeError(
                "torch-pyops: no torch with headers was found to compile with; set PYOPS_TORCH_DIR"
                " to the directory of an installed torch package"
            )
        csrc = ROOT / "csrc"
        python_include = [Path(d) for d in self.include_dirs if (Path(d) / "Python.h").is_file()]
        recipe = Build(
            compiler=make_plan(os.environ).compiler,
            root=ROOT,
            sources=tuple(ROOT / source for source in ext.sources),
            include_dirs=(csrc,),
            system_include_dirs=(
                Path(pybind11.get_include()),  # before torch's own copy of it
                torch.path / "include",
                *python_include,
            ),
            library_dir=torch.path / "lib",
            cache=ROOT / "build" / "objects",
        )
        compile_extension(recipe, Path(self.get_ext_fullpath(ext.name)).resolve())

    def run(self) -> None:
        super().run()
        if self.inplace:  # also `setup.py build_ext --inplace`, where no `build` follows
            info = self.get_finalized_command("build_info")
            info.editable_mode = True  # type: ignore[attr-defined]
            info.run()


def extensions() -> list[Extension]:
    """Return the extension modules to build: none when the plan is a Python-only install."""
    if make_plan(os.environ).reason is not None:
        return []
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cpp"))
    return [Extension("pyops._C", sources, language="c++")]


def _facts() -> dict[str, Any]:
    plan = make_plan(os.environ)
    compiled = plan.reason is None
    torch = find_torch(os.environ) if compiled else None
    return {
        "compiled": compiled,
        "reason": plan.reason,
        "compiler": compiler_version(plan.compiler) if compiled else None,
        "flags": " ".join(flags(plan.compiler)) if compiled else None,
        "torch": torch.version if torch is not None else None,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }

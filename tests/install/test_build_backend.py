"""How the build finds torch and a compiler, without building anything."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def site_of(prefix: Path) -> Path:
    """The folder that pip installs into, for an environment at ``prefix``."""
    base = {"base": str(prefix), "platbase": str(prefix)}
    return Path(sysconfig.get_path("purelib", vars=base))


def make_venv(prefix: Path, *, system_site: bool) -> Path:
    site_of(prefix).mkdir(parents=True)
    flag = "true" if system_site else "false"
    (prefix / "pyvenv.cfg").write_text(f"home = /x\ninclude-system-site-packages = {flag}\n")
    return prefix


def test_finds_torch_in_a_site_directory(build_backend, fake_torch, tmp_path):
    torch = fake_torch(tmp_path, version="2.14.1+cu130")
    assert build_backend.find_torch({}, [tmp_path / "empty", tmp_path]) == (torch, "2.14.1+cu130")


def test_no_torch(build_backend, tmp_path):
    assert build_backend.find_torch({}, [tmp_path]) is None


def test_torch_without_headers_is_not_enough(build_backend, fake_torch, tmp_path):
    fake_torch(tmp_path, headers=False)
    assert build_backend.find_torch({}, [tmp_path]) is None


def test_finds_torch_through_a_pth_file(build_backend, fake_torch, tmp_path):
    torch = fake_torch(tmp_path / "elsewhere")
    packages = tmp_path / "site"
    packages.mkdir()
    (packages / "a.pth").write_text("import os\n# no\n\n/not/there\n../elsewhere\n")
    found = build_backend.find_torch({}, [packages])
    assert found.path.resolve() == torch


@pytest.mark.parametrize("version", ["2.9.1+cu128", "1.13.0", "2.0"])
def test_old_torch_is_an_error(build_backend, fake_torch, tmp_path, version):
    fake_torch(tmp_path, version=version, headers=False)
    with pytest.raises(RuntimeError) as error:
        build_backend.find_torch({}, [tmp_path])
    assert str(error.value) == (
        "torch-pyops needs torch >= 2.10, but the target environment has torch"
        f" {version} in {tmp_path / 'torch'}: upgrade it (pip install 'torch>=2.10') or set"
        " PYOPS_TORCH_DIR to the directory of a newer torch package"
    )


def test_override(build_backend, fake_torch, tmp_path):
    fake_torch(tmp_path / "a")
    wanted = fake_torch(tmp_path / "b", version="2.11.0")
    environ = {"PYOPS_TORCH_DIR": str(wanted)}
    assert build_backend.find_torch(environ, [tmp_path / "a"]) == (wanted, "2.11.0")


def test_override_that_is_not_torch(build_backend, tmp_path):
    with pytest.raises(RuntimeError, match=r"PYOPS_TORCH_DIR=.* is not the directory of a torch"):
        build_backend.find_torch({"PYOPS_TORCH_DIR": str(tmp_path)}, [])


def test_target_of_a_virtual_environment(build_backend, tmp_path):
    base = tmp_path / "base"
    site_of(base).mkdir(parents=True)
    dirs = build_backend.torch_dir.target_site_dirs
    alone = make_venv(tmp_path / "alone", system_site=False)
    assert site_of(alone) in dirs(str(alone), str(base))
    assert site_of(base) not in dirs(str(alone), str(base))
    both = make_venv(tmp_path / "both", system_site=True)
    found = dirs(str(both), str(base))
    assert found.index(site_of(both)) < found.index(site_of(base))


def test_target_without_a_virtual_environment(build_backend, tmp_path):
    """A system Python, or conda: the prefix itself and the user's own packages."""
    dirs = build_backend.torch_dir.target_site_dirs(str(tmp_path), str(tmp_path))
    assert site_of(tmp_path) in dirs
    assert Path(site.getusersitepackages()) in dirs
    without_user = build_backend.torch_dir.target_site_dirs(
        str(tmp_path), str(tmp_path), user_site=False
    )
    assert Path(site.getusersitepackages()) not in without_user


def ask_in_isolation(root: Path, overlay: Path, environ: dict[str, str]) -> list[str]:
    """Call the hooks as pip does: this interpreter, but only setuptools on ``sys.path``."""
    overlay.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).glob("setuptools*"):
        (overlay / entry.name).symlink_to(entry)
    code = (
        "import sys, sysconfig; sys.path.remove(sysconfig.get_path('purelib')); "
        f"sys.path[:0] = [{str(root)!r}, {str(overlay)!r}]; import build_backend as b; "
        "import importlib.util as u; assert u.find_spec('torch') is None; "
        "print(b.get_requires_for_build_wheel(), b.get_requires_for_build_editable(), "
        "b.get_requires_for_build_sdist(), sep='\\n')"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CXX", "PYOPS_BUILD")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**clean, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_hooks_ask_for_no_second_torch(checkout, tmp_path):
    lines = ask_in_isolation(checkout, tmp_path / "overlay", {})
    assert lines[-3:] == ["[]", "[]", "[]"]
    assert any(line.startswith("torch-pyops: building with torch ") for line in lines)


def test_hooks_ask_for_torch_where_there_is_none(build_backend, root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    monkeypatch.delenv("PYOPS_BUILD", raising=False)
    monkeypatch.setattr(build_backend, "find_torch", lambda environ: None)
    monkeypatch.setattr(
        build_backend, "make_plan", lambda environ: build_backend.plan.Plan(("c++",), None)
    )
    assert build_backend._torch_requirement() == ["torch==2.13.0"]


def test_hooks_ask_for_no_torch_if_nothing_is_compiled(checkout, tmp_path):
    lines = ask_in_isolation(checkout, tmp_path / "overlay", {"PYOPS_BUILD": "python"})
    assert lines[-3:] == ["[]", "[]", "[]"]


@pytest.fixture
def make_plan(build_backend: ModuleType) -> Callable:
    return build_backend.make_plan


def fake_compiler(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_plan_prefers_cxx(make_plan, tmp_path):
    cxx = fake_compiler(tmp_path, "my-c++")
    assert make_plan({"CXX": f"{cxx} -g", "PATH": ""}) == ((str(cxx), "-g"), None)


@pytest.mark.parametrize("name", ["c++", "g++", "clang++"])
def test_plan_searches_path(make_plan, tmp_path, name):
    fake_compiler(tmp_path, name)
    assert make_plan({"PATH": str(tmp_path)}) == ((name,), None)


def test_plan_without_compiler(make_plan, tmp_path):
    plan = make_plan({"PATH": str(tmp_path)})
    assert plan.reason == (
        "no C++ compiler was found at build time: tried c++, g++, clang++ on PATH; CXX is not set"
    )
    plan = make_plan({"PATH": str(tmp_path), "CXX": "/nonexistent"})
    assert plan.reason == "no C++ compiler was found at build time: CXX=/nonexistent"


def test_plan_python(make_plan):
    assert make_plan({"PYOPS_BUILD": "python"}).reason == "PYOPS_BUILD=python was set at build time"


def test_plan_cpp_needs_a_compiler(make_plan, tmp_path):
    with pytest.raises(RuntimeError, match=r"^PYOPS_BUILD=cpp, but no C\+\+ compiler was found"):
        make_plan({"PYOPS_BUILD": "cpp", "PATH": str(tmp_path)})


def test_plan_unknown_mode(make_plan):
    with pytest.raises(ValueError, match=r"^PYOPS_BUILD=gpu: expected one of auto, cpp, python$"):
        make_plan({"PYOPS_BUILD": "gpu"})


def test_no_flag_names_the_build_machine(build_backend):
    import build_backend.compile as compile_module

    flags = compile_module.flags((sys.executable,))  # anything that answers to --version
    machine = {f for f in flags if f.startswith("-m")}
    assert machine <= {"-march=x86-64", "-mtune=generic"}
    assert {"-ffp-contract=off", "-fvisibility=hidden", "-std=c++20"} <= set(flags)


def test_objects_are_rebuilt_when_a_header_changes(build_backend, tmp_path):
    import build_backend.compile as compile_module

    obj, deps, header = tmp_path / "a.o", tmp_path / "a.d", tmp_path / "a b.h"
    header.touch()
    assert compile_module._stale(obj, deps)
    obj.touch()
    escaped = str(header).replace(" ", "\\ ")
    deps.write_text(f"{obj}: \\\n {escaped}\n")
    assert not compile_module._stale(obj, deps)
    later = obj.stat().st_mtime + 10
    os.utime(header, (later, later))
    assert compile_module._stale(obj, deps)
    header.unlink()
    assert compile_module._stale(obj, deps)

"""Real installations by pip, with plain build isolation, in environments that have torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

pytestmark = pytest.mark.slow


def assert_one_torch(log, venv):
    """Neither the build environment nor the environment itself got another torch."""
    assert "Requirement already satisfied: torch" in log
    assert "building with torch" in log
    assert "Collecting torch" not in log
    assert "Downloading torch-" not in log
    assert (venv.site / "torch").is_symlink()


def assert_compiled(info):
    assert info["compiled"] is True, info["why"]
    assert info["info"]["compiled"] == "True"
    assert "generic" in info["isa"]


def test_editable_beside_torch(new_venv, checkout, run_info):
    venv = new_venv()
    start = time.monotonic()
    log = venv.run("-m", "pip", "install", "-v", "-e", checkout).stdout
    seconds = time.monotonic() - start
    assert_one_torch(log, venv)
    info = run_info(venv)
    assert_compiled(info)
    assert info["file"] == str(checkout / "pyops" / "__init__.py")
    assert seconds < 180
    # The repository's other folders must not become importable.
    code = "import importlib.util as u; print([n for n in ('tests', 'bench') if u.find_spec(n)])"
    assert venv.run("-c", code).stdout.strip() == "[]"
    said = venv.run("-m", "pyops", "info").stdout
    assert "generic" in said


def test_source_distribution_and_wheel(new_venv, checkout, run_info, tmp_path):
    code = "import build_backend; print(build_backend.build_sdist('dist'))"
    venv = new_venv()
    venv.run("-m", "pip", "install", "setuptools>=77")
    venv.run("-c", code, cwd=checkout)
    (archive,) = (checkout / "dist").glob("torch_pyops-*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"LICENSE", "build_backend/torch_dir.py", "csrc/module.cpp", "pyops/py.typed"} <= names
    assert any(name.endswith("kernels.inc") for name in names)
    assert not [n for n in names if n.endswith(".so") or n.startswith(("tests", "bench"))]

    log = venv.run("-m", "pip", "wheel", "-v", "--no-deps", "-w", tmp_path, archive).stdout
    assert "building with torch" in log
    (wheel,) = tmp_path.glob("torch_pyops-*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0].partition("-")[0] for name in files}
    assert tops == {"pyops", "torch_pyops"}
    for name in ("py.typed", "_C.pyi", "_build_info.json", "testing/__init__.py"):
        assert f"pyops/{name}" in files
    assert [n for n in files if n.startswith("pyops/_C.") and n.endswith(".so")]
    assert [n for n in files if n.startswith("pyops/data/")]

    log = venv.run("-m", "pip", "install", wheel).stdout
    assert "Collecting torch" not in log
    info = run_info(venv)
    assert_compiled(info)
    assert str(info["file"]).startswith(str(venv.site))


def test_python_only(new_venv, checkout, run_info, tmp_path):
    venv = new_venv()
    log = venv.run("-m", "pip", "install", "-v", checkout, PYOPS_BUILD="python").stdout
    reason = "PYOPS_BUILD=python was set at build time"
    assert f"installing without compiled kernels: {reason}" in log
    assert "py3-none-any.whl" in log
    info = run_info(venv)
    assert info["compiled"] is False
    assert info["why"] == reason
    assert info["isa"] == ["reference"]
    assert reason in venv.run("-m", "pyops", "info").stdout
    code = (
        "import torch, pyops; m = torch.nn.Sequential(torch.nn.Linear(64, 32)).eval();"
        "print(pyops.quantize(m, include='*')(torch.ones(2, 64)).shape)"
    )
    assert "torch.Size([2, 32])" in venv.run("-c", code).stdout


def test_no_compiler(new_venv, checkout, run_info):
    venv = new_venv()
    # An earlier build's module must not survive the change to a Python-only install.
    stale = checkout / "pyops" / "_C.old.so"
    stale.touch()
    venv.run("-m", "pip", "install", "-e", checkout, CXX="/nonexistent")
    info = run_info(venv)
    assert info["why"] == "no C++ compiler was found at build time: CXX=/nonexistent"
    assert not stale.exists()


def test_compile_error_is_not_a_fallback(new_venv, checkout):
    venv = new_venv()
    module = checkout / "csrc" / "module.cpp"
    module.write_text('#error "broken on purpose"\n')
    for other in checkout.glob("csrc/cpu/**/*.cpp"):
        other.unlink()
    done = venv.run("-m", "pip", "install", checkout, check=False)
    assert done.returncode != 0
    assert "broken on purpose" in done.stdout
    assert not (venv.site / "pyops").exists()


def test_runs_with_another_torch(request, root, tmp_path):
    """The module built here loads there without a rebuild, and passes the op tests."""
    python = request.config.getoption("--other-python")
    if python is None:
        pytest.skip("--other-python names no interpreter with another torch")
    (tmp_path / "pyops").symlink_to(root / "pyops")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    version = "import sys, torch; print(sys.version_info[:2], torch.__version__)"
    here = subprocess.check_output([sys.executable, "-c", version], text=True)
    there = subprocess.check_output([python, "-c", version], env=env, text=True)
    assert there.split(")")[0] == here.split(")")[0], "the module is built for one Python"
    assert there != here
    check = "import pyops; assert pyops.backends.compiled(), pyops.backends.why_not_compiled()"
    subprocess.run([python, "-c", check], env=env, check=True)
    subprocess.run([python, "-m", "pytest", "-q", str(root / "tests/ops")], env=env, check=True)

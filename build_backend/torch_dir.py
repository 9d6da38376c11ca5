"""Finds the torch package directory whose headers and libraries the extension is compiled with.

In order: ``PYOPS_TORCH_DIR``; a torch that can be imported here (no build isolation, or a build
environment that was given one); a torch on disk in the environment that pip installs into. Under
pip's isolation the last one works because pip runs the hooks with the target's own interpreter and
only changes ``sys.path``: ``sys.prefix`` still names the target. torch itself is never imported.
"""

from __future__ import annotations

import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

OLDEST_TORCH = (2, 10)
TORCH_FOR_BUILD = "torch==2.13.0"


class TorchDir(NamedTuple):
    """A torch package directory (it holds ``include/`` and ``lib/``) and its version."""

    path: Path
    version: str


def find_torch(
    environ: Mapping[str, str], site_dirs: Sequence[Path] | None = None
) -> TorchDir | None:
    """Return the torch to compile with, or None if there is none (or none with headers).

    ``site_dirs`` replaces both the import system and the target's site directories.

    Raises:
        RuntimeError: ``PYOPS_TORCH_DIR`` is not a torch package, or the torch found is too old.
    """
    override = environ.get("PYOPS_TORCH_DIR")
    if override:
        found = _read(Path(override).expanduser().resolve())
        if found is None:
            raise RuntimeError(
                f"PYOPS_TORCH_DIR={override} is not the directory of a torch package: expected"
                " version.py, include/torch/csrc/stable and lib in it"
            )
        return _checked(found)
    if site_dirs is None:
        candidates = [*_importable_torch(), *(d / "torch" for d in target_site_dirs())]
    else:
        candidates = [d / "torch" for d in with_pth_dirs(site_dirs)]
    for path in candidates:
        found = _read(path)
        if found is not None:
            return _checked(found)
    return None


def target_site_dirs(
    prefix: str = sys.prefix, base_prefix: str = sys.base_prefix, user_site: bool = True
) -> list[Path]:
    """Return the directories that the target environment imports from, in import order.

    A virtual environment adds the base interpreter's directories and the user's only with
    ``include-system-site-packages = true``; any other environment (conda too) always has both.
    """
    dirs = [Path(sysconfig.get_path(k, vars=_vars(prefix))) for k in ("purelib", "platlib")]
    dirs += [Path(d) for d in site.getsitepackages([prefix])]
    if prefix == base_prefix or _sees_system_site(Path(prefix)):
        if user_site:
            dirs.append(Path(site.getusersitepackages()))
        # Debian keeps distribution packages outside the scheme; getsitepackages knows where.
        dirs += [Path(d) for d in site.getsitepackages([base_prefix])]
        dirs += [Path(sysconfig.get_path("purelib", vars=_vars(base_prefix)))]
    return with_pth_dirs(dirs)


def with_pth_dirs(dirs: Sequence[Path]) -> list[Path]:
    """Return ``dirs`` without repeats, each followed by the directories its .pth files add."""
    out: dict[Path, None] = {}
    for directory in dirs:
        out[directory] = None
        for pth in sorted(directory.glob("*.pth")):
            for line in pth.read_text(errors="replace").splitlines():
                added = directory / line.strip()
                if line.strip() and not line.startswith(("import", "#")) and added.is_dir():
                    out[added] = None
    return list(out)


def _vars(prefix: str) -> dict[str, str]:
    return {"base": prefix, "platbase": prefix}


def _sees_system_site(prefix: Path) -> bool:
    config = prefix / "pyvenv.cfg"
    pattern = r"(?im)^\s*include-system-site-packages\s*=\s*true\s*$"
    return config.is_file() and re.search(pattern, config.read_text()) is not None


def _importable_torch() -> Iterator[Path]:
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent


def _read(path: Path) -> TorchDir | None:
    """Read version and presence of headers without importing torch (about a second, and deps)."""
    version_file = path / "version.py"
    if not version_file.is_file():
        return None
    match = re.search(r"""(?m)^__version__\s*=\s*['"]([^'"]+)['"]""", version_file.read_text())
    if match is None:
        return None
    found = TorchDir(path, match[1])
    # Too old a torch is reported, and such a one may lack the stable headers: check the age first.
    if _number(found.version) < OLDEST_TORCH:
        return found
    complete = (path / "include/torch/csrc/stable").is_dir() and (path / "lib").is_dir()
    return found if complete else None


def _number(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _checked(found: TorchDir) -> TorchDir:
    if _number(found.version) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise RuntimeError(
            f"torch-pyops needs torch >= {oldest}, but the target environment has torch"
            f" {found.version} in {found.path}: upgrade it (pip install 'torch>={oldest}') or set"
            " PYOPS_TORCH_DIR to the directory of a newer torch package"
        )
    return found

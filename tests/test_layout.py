"""The tree keeps its shape: an op is complete, kernel files are sterile, budgets hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pyops.ops  # noqa: F401  (registers the schemas)

ROOT = Path(__file__).resolve().parent.parent
CPU = ROOT / "csrc" / "cpu"
SOURCE_DIRS = ("build_backend", "csrc", "kernels", "pyops", "tests", "bench", "scripts")
OPS = sorted(p.name for p in CPU.iterdir() if (p / "kernels.inc").is_file())
ROW = re.compile(r"^PYOPS_[A-Z0-9_]+_KERNEL\(\s*(\w+)", re.MULTILINE)
ISAS = re.findall(r"^PYOPS_ISA\((\w+)", (CPU / "isa.inc").read_text(), re.MULTILINE)
# What an op's folder may hold beside one file per row.
BEYOND_KERNELS = {"call", "dense", "depthwise", "driver", "linear", "pack", "pool", "rows"}
BEYOND_KERNELS |= {"few_rows", "rows_program", "run", "section", "strip", "table"}
BEYOND_KERNELS |= {"blocks", "panels", "winograd"}
INCLUDES_OF_ISA_FILES = {"immintrin.h", "arm_neon.h", "cstdint", "cstddef"}
SCHEMA_TYPES = {
    "Tensor": "Tensor",
    "OptionalTensor": "Optional[Tensor]",  # an alias; the compiler holds it to its definition
    "optional<Tensor>": "Optional[Tensor]",
    "double": "float",
    "int64_t": "int",
    "bool": "bool",
    "string": "str",
    "vector<int64_t>": "List[int]",
    "vector<double>": "List[float]",
    "vector<Tensor>": "List[Tensor]",
}


def sources(*suffixes: str) -> list[Path]:
    found = [p for d in SOURCE_DIRS for p in (ROOT / d).rglob("*") if p.suffix in suffixes]
    return sorted(p for p in [*found, ROOT / "setup.py"] if p.suffix in suffixes)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rows(op: str) -> list[str]:
    return ROW.findall((CPU / op / "kernels.inc").read_text())


def isa_files() -> list[Path]:
    """The files that hold code for one instruction set, and what they share per instruction set."""
    kernels = [CPU / op / f"{row}.cpp" for op in OPS for row in rows(op)]
    others = [
        p for op in OPS for p in (CPU / op).glob("*.cpp") if p.stem.rpartition("_")[2] in ISAS
    ]
    return sorted({*kernels, *others, *CPU.rglob("*.inl.h")})


def packs(op: str) -> bool:
    """Tell whether one of the op's schemas is that of a pack."""
    return any("_pack(" in p.read_text() for p in (ROOT / "pyops" / "ops").glob(f"{op}*.py"))


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def test_there_are_ops():
    assert "int8_gemm" in OPS
    assert ISAS[0] == "generic"


@pytest.mark.parametrize("op", OPS)
def test_op_is_complete(op):
    pieces = [
        f"csrc/checks/{op}.h",
        *(f"csrc/cpu/{op}/{name}" for name in ("README.md", f"{op}.h", "kernels.inc")),
        f"csrc/cpu/{op}/driver.cpp",
        *([f"csrc/cpu/{op}/pack.h"] if packs(op) else []),
        f"pyops/ops/{op}.py",
        f"pyops/testing/cases/{op}.py",
        f"tests/ops/test_{op}.py",
        f"bench/ops/{op}.py",
    ]
    missing = [piece for piece in pieces if not (ROOT / piece).is_file()]
    assert not missing, f"op {op!r} has kernels but no {', '.join(missing)}"


@pytest.mark.parametrize("op", OPS)
def test_rows_and_files_agree(op):
    table = rows(op)
    assert len(set(table)) == len(table)
    missing = [f"{row}.cpp" for row in table if not (CPU / op / f"{row}.cpp").is_file()]
    assert not missing, f"{op}/kernels.inc names rows without a file: {missing}"
    stems = {p.stem for p in (CPU / op).glob("*.cpp")} - BEYOND_KERNELS
    # `<part>_<isa>.cpp` is a second part of a level, such as its row quantizer.
    known = {s for s in stems if s in table or s.rpartition("_")[2] in {*ISAS, *table}}
    assert stems == known, f"not a row of {op}/kernels.inc: {sorted(stems - known)}"


@pytest.mark.parametrize("path", isa_files(), ids=relative)
def test_isa_files_are_sterile(path):
    text = without_comments(path.read_text())
    includes = re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', text)
    refused = [i for i in includes if i not in INCLUDES_OF_ISA_FILES and not i.startswith("cpu/")]
    assert not refused, (
        f"{relative(path)} includes {refused}; ISA files may include only"
        " immintrin/arm_neon/cstdint/cstddef and cpu/*"
    )
    for pattern, what in (
        (r"\bstd::", "the standard library"),
        (r"\[[&=]?\]\s*[({]", "a lambda"),
        (r"^\s*static\s+(?!inline|constexpr)[^(]*[=;]", "a static object"),
        (r"\b(throw|virtual|new|malloc)\b", "throw, virtual or allocation"),
    ):
        match = re.search(pattern, text, re.MULTILINE)
        assert match is None, f"{relative(path)} has {what}: {match[0].strip()}"


@pytest.mark.parametrize("path", [p for p in isa_files() if p.suffix == ".cpp"], ids=relative)
def test_includes_stand_above_the_target_region(path):
    text = without_comments(path.read_text())
    begin = text.find("PYOPS_TARGET_BEGIN")
    if begin < 0:
        assert {"generic", "odd"} & {path.stem, path.stem.rpartition("_")[2]}
        return
    inside = re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', text[begin:])
    assert not [name for name in inside if not name.endswith(".inl.h")]
    assert text.count("PYOPS_TARGET_BEGIN") == text.count("PYOPS_TARGET_END")


def cpp_type(declaration: str) -> str:
    """Return the type of a C++ parameter in the schema's spelling, without name and qualifiers."""
    text = re.sub(r"\b(const|std::|torch::stable::)|&", "", declaration.strip())
    text = re.sub(r"torch::stable::|std::", "", text).strip()
    match = re.fullmatch(r"((?:\w+::)*\w+(?:<.*>)?)\s*(\w+)?", text)
    assert match is not None, f"can't read the C++ parameter {declaration!r}"
    return SCHEMA_TYPES.get(match[1].replace(" ", ""), f"{match[1]} (not allowed)")


def cpp_implementations() -> Iterator[tuple[str, list[str]]]:
    """Yield the schema name and parameter types of each function registered with TORCH_BOX."""
    for path in sources(".cpp"):
        text = without_comments(path.read_text())
        for op, function in re.findall(r'impl\(\s*"(\w+)",\s*TORCH_BOX\(&?(\w+)\)', text):
            head = re.search(rf"^[\w:<>, ]+?\b{function}\(([^)]*)\)\s*{{", text, re.MULTILINE)
            assert head is not None, f"{relative(path)} registers {function} but defines it not"
            yield op, [cpp_type(p) for p in re.split(r",(?![^<]*>)", head[1]) if p.strip()]


def schema_types(name: str) -> list[str]:
    schema = getattr(torch.ops.pyops, name).default._schema
    return [str(argument.type) for argument in schema.arguments]


REGISTERED = sorted(
    name.removeprefix("pyops::").partition(".")[0]
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("pyops::")
)


@pytest.mark.parametrize("name", REGISTERED)
def test_schema_types(name):
    allowed = {*SCHEMA_TYPES.values(), "List[float]", "Optional[int]", "Optional[float]"}
    assert set(schema_types(name)) <= allowed


def test_cpp_signatures_match_the_schemas():
    """TORCH_BOX checks no types: a mismatch would read the wrong bytes."""
    implementations = dict(cpp_implementations())
    assert "int8_gemm" in implementations
    for name, types in implementations.items():
        assert types == schema_types(name), f"C++ and schema of {name} differ"


def functions_over(path: Path, limit: int) -> Iterator[str]:
    """Yield functions with more lines than ``limit``, docstring and arguments not counted."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
                if body[-1].end_lineno - body[0].lineno + 1 > limit:
                    yield node.name
        return
    start = name = None
    indent = ""
    for number, line in enumerate(path.read_text().splitlines()):
        own = line[: len(line) - len(line.lstrip())]
        if start is None and re.match(r"[\w:<>&*, \[\]]+\(", line):
            if not line.lstrip().startswith(("namespace", "#")):
                indent = own if name is None else indent
                name = name or line
        if start is None and line.endswith((";", "}")):
            name = None
        if start is None and name and line.endswith("{") and line.lstrip()[0] != "}":
            start = number
        if start is not None and line.startswith(indent + "}"):
            if number - start - 1 > limit:
                yield str(name)
            start = name = None


@pytest.mark.parametrize("path", sources(".py", ".h", ".cpp", ".inc"), ids=relative)
def test_budgets(path):
    lines = path.read_text().splitlines()
    kernel_file = path in isa_files()
    budget = 400 if kernel_file else 300
    reason = any("over budget" in line.lower() for line in lines[:8])
    assert len(lines) <= budget or reason, (
        f"{relative(path)} has {len(lines)} lines, {budget} are allowed; a file over budget opens"
        " with the reason ('Over budget: ...')"
    )
    if not reason:
        assert not list(functions_over(path, 60))


@pytest.mark.parametrize("path", sources(".py", ".h", ".cpp", ".inc"), ids=relative)
def test_what_is_refused_in_review(path):
    if path == Path(__file__):
        return
    text = path.read_text()
    for pattern, why in (
        (r"#\s*if.*__AVX|#\s*if.*__FMA__", "the build machine's instruction set decides"),
        (r"[\"']-m(arch=native|avx\w*|fma)\b", "flags are per target region, not per file"),
        (r"sys\.path\.(insert|append)", "sys.path is changed"),
        (r"\bTODO\b(?!\(#\d+\))", "a TODO names no issue"),
    ):
        assert not re.search(pattern, text), f"{relative(path)}: {why}"


@pytest.mark.parametrize("path", sorted(CPU.rglob("*.h")), ids=relative)
def test_headers_are_guarded(path):
    if not path.name.endswith(".inl.h"):
        assert "#pragma once" in path.read_text()


@pytest.mark.parametrize(
    "path",
    [p for p in ROOT.rglob("*.md") if not {".venv", ".ci", "build"} & {*p.parts}],
    ids=relative,
)
def test_documents_name_existing_files(path):
    pattern = r"`((?:[\w.-]+/)+[\w.-]*\.?\w*|[\w-]+\.(?:py|md|toml|txt|cpp|h|inc|in))`"
    for name in re.findall(pattern, path.read_text()):
        if name.split("/")[0] not in {*SOURCE_DIRS, ".ci"} and "/" in name:
            continue
        # `isa.inc` in csrc/cpu/int8_gemm/README.md may stand in that folder or in one above it.
        places = [d / name for d in path.parents if d.is_relative_to(ROOT)]
        named_below = "/" not in name and list(path.parent.rglob(name))
        assert any(p.exists() for p in places) or named_below, f"{relative(path)} names {name}"


@pytest.mark.parametrize(
    "module", ["pyops", "pyops.ops", "pyops.nn", "pyops.isa", "pyops.backends"]
)
def test_public_names_are_documented(module):
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    names = getattr(loaded, "__all__", None) or [n for n in vars(loaded) if not n.startswith("_")]
    for name in names:
        thing = getattr(loaded, name)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        if not thing.__module__.startswith("pyops"):
            continue
        assert inspect.getdoc(thing), f"{module}.{name} has no docstring"
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            bare = [p for p in signature.parameters.values() if p.annotation is p.empty]
            assert not bare, f"{module}.{name}: untyped {bare}"
            assert signature.return_annotation is not signature.empty, f"{module}.{name}: no return"

"""What the compiler made of the kernels: the intended instructions, and only where they may be.

A level is proven by opcode count, because a generic loop that the compiler vectorised computes the
same numbers as a hand-written kernel at a fraction of the speed.
Over budget: one table of what each kernel has to hold.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections import Counter
from typing import NamedTuple

import pytest

from pyops import backends

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the expectations are for x86-64"
)


class Expected(NamedTuple):
    """The hot loop of a kernel: a multiple of ``multiple_of`` x ``opcode``, none of ``never``."""

    kernel: str
    opcode: str
    multiple_of: int
    never: tuple[str, ...] = ()


# multiple_of: rows x vectors of the full tile, so a loop unrolled over k may hold it several times.
INT8_GEMM = (
    Expected("avx2", "vpmaddubsw ymm", 12, ("vpdpbusd",)),
    Expected("avx2wide", "vpmaddwd ymm", 12, ("vpdpbusd", "vpmaddubsw")),
    Expected("avxvnni", "vpdpbusd ymm", 12),
    Expected("evexvnni", "vpdpbusd ymm", 12),
    Expected("avx512", "vpmaddwd zmm", 24, ("vpdpbusd",)),
    Expected("avx512vnni", "vpdpbusd zmm", 24),
    Expected("amx", "tdpbssd tmm", 4),
    Expected("amx", "tdpbusd tmm", 4),
)
ATTENTION = (
    Expected("avx2", "vfmadd231ps ymm", 12),
    Expected("avx512", "vfmadd231ps zmm", 24),
    Expected("avx512bf16", "vdpbf16ps zmm", 24),
    Expected("amx", "tdpbf16ps tmm", 4),
)
# One multiply-add per row and vector of the full tile, and one decoded weight per vector.
WEIGHT_ONLY = (
    Expected("avx2", "vfmadd231ps ymm", 12),
    Expected("avx512", "vfmadd231ps zmm", 24),
)
# Of four vectors of tokens the first is multiplied, three are added, for each place of a quad.
MASKED_MATMUL = (
    Expected("avx2", "vfmadd231ps ymm", 12),
    Expected("avx512", "vfmadd231ps zmm", 12),
)
CONV_RELU = (
    Expected("avx512bf16", "vdpbf16ps zmm", 28),
    Expected("amx", "tdpbf16ps tmm", 4),
    Expected("avx2", "vfmadd231ps ymm", 12),
    Expected("avx512", "vfmadd231ps zmm", 28),
)
# Of sparse weights: 4 outputs by 4 tokens.
FEW_ROWS = (
    Expected("avx512", "vfmadd231ps zmm", 16),
    Expected("avx512vbmi2", "vpdpbusd zmm", 16),
)
# Three columns of the window, two vectors; half of them where vpmaddwd takes two rows.
DEPTHWISE = (
    Expected("avx512", "vpmaddwd zmm", 12, ("vpdpbusd",)),
    Expected("avx512vnni", "vpdpbusd zmm", 6),
)
# Of four outputs that share k: each sum once. (Two of 64 or 32 tokens: half of that.)
INT8_SPARSE = (
    Expected("avx512vnni", "vpdpbusd zmm", 16),
    Expected("avxvnni", "vpdpbusd ymm", 8),
    Expected("evexvnni", "vpdpbusd ymm", 8),
    Expected("avx2", "vpmaddwd ymm", 16, ("vpmaddubsw",)),
)
# 12 x 2 vectors of quads and 5 x 4 of windows, or 6 x 2 and 3 x 2.
PANELS = (
    Expected("avx512vnni", "vpdpbusd zmm", 24),
    Expected("avxvnni", "vpdpbusd ymm", 12),
    Expected("evexvnni", "vpdpbusd ymm", 12),
)
# Float products may fuse, as they state a bound and not bits; nothing else may.
FLOAT_PRODUCTS = re.compile(
    r"::attention::|::masked::|::(int4_tile|int8_tile|float_tile|conv_sums|list_sums|depthwise_sums)<"
)
SPARSE_PRODUCTS = re.compile(r"::(add_pairs<|add_quad<|few_strips<|sparse_(multiply|few_rows)\()")
_KERNELS = {
    row.name
    for op in backends.ops()
    for row in backends.implementations(op)
    if row.isa != "generic"
}
ISA_NAMESPACE = rf"pyops::cpu::({'|'.join(sorted(_KERNELS))})::"


def assert_whole_tiles(found: Counter[str], expected: Expected) -> None:
    number = found[expected.opcode]
    assert number > 0
    assert number % expected.multiple_of == 0, f"{number} x {expected.opcode}"
    assert not [name for name in expected.never if found[name]]


@pytest.mark.parametrize("expected", INT8_GEMM, ids=lambda e: f"{e.kernel} {e.opcode.split()[0]}")
def test_hot_loop(object_code, opcodes, expected):
    pattern = rf"^(?!.*::slide<).*pyops::cpu::{expected.kernel}::"  # slide: below
    loop = object_code.hottest_loop(pattern, expected.opcode)
    assert_whole_tiles(opcodes(loop), expected)
    spilled = [f"{i.mnemonic} {i.operands}" for i in loop if i.spills]
    assert not spilled, f"{expected.kernel} spills in its hot loop: {spilled}"


@pytest.mark.parametrize("expected", ATTENTION, ids=lambda e: e.kernel)
def test_hot_loop_of_attention(object_code, opcodes, expected):
    pattern = rf"pyops::cpu::{expected.kernel}::attention::.*tile<"
    loop = object_code.hottest_loop(pattern, expected.opcode.split()[0])
    assert_whole_tiles(opcodes(loop), expected)
    spilled = [f"{i.mnemonic} {i.operands}" for i in loop if i.spills]
    assert not spilled, f"{expected.kernel} spills in its hot loop: {spilled}"


@pytest.mark.parametrize("expected", WEIGHT_ONLY, ids=lambda e: e.kernel)
@pytest.mark.parametrize("tile", ["int4_tile", "int8_tile", "float_tile"])
def test_hot_loop_of_float_products(object_code, opcodes, expected, tile):
    if expected.kernel == "avx2" and "clang" in backends.build_info()["compiler"]:
        pytest.skip(
            "clang 14 inlines the decoding tiles and keeps a sum of the float tile in memory"
        )
    loop = object_code.hottest_loop(rf"pyops::cpu::{expected.kernel}::.*{tile}<", "vfmadd231ps")
    registers = expected.opcode.split()[1]
    counts = opcodes(loop)  # the compiler chooses among three orders of the operands
    number = sum(counts[f"vfmadd{order}ps {registers}"] for order in (132, 213, 231))
    assert number > 0
    assert number % expected.multiple_of == 0, f"{number} multiply-adds"
    spilled = [f"{i.mnemonic} {i.operands}" for i in loop if i.spills]
    # 12 sums of 16 registers: gcc 12 keeps three of 96 steps' sums on the stack; held x cost 34.
    allowed = 6 if (expected.kernel, tile) == ("avx2", "int4_tile") else 0
    assert len(spilled) <= allowed, f"{expected.kernel} {tile} spills in its hot loop: {spilled}"


@pytest.mark.parametrize("expected", MASKED_MATMUL, ids=lambda e: e.kernel)
def test_hot_loop_of_masked_gradients(object_code, opcodes, expected):
    pattern = rf"pyops::cpu::{expected.kernel}::masked::"
    loop = object_code.hottest_loop(pattern, expected.opcode.split()[0])
    assert_whole_tiles(opcodes(loop), expected)
    spilled = [f"{i.mnemonic} {i.operands}" for i in loop if i.spills and "mm" in i.operands]
    assert not spilled, f"{expected.kernel} spills sums in its hot loop: {spilled}"


@pytest.mark.parametrize("expected", CONV_RELU, ids=lambda e: e.kernel)
def test_hot_loop_of_convolutions(object_code, opcodes, expected):
    pattern = rf"pyops::cpu::{expected.kernel}::.*conv_sums<"
    loop = object_code.hottest_loop(pattern, expected.opcode.split()[0])
    assert_whole_tiles(opcodes(loop), expected)
    # 14 pointers do not fit into 16 registers with all else; no sum may be among what is kept.
    sums = [i for i in loop if i.spills and "mm" in i.operands]
    assert not sums, f"{expected.kernel} spills sums in its hot loop"


@pytest.mark.parametrize(
    "expected", [e for e in CONV_RELU if e.kernel != "amx"], ids=lambda e: e.kernel
)
@pytest.mark.parametrize("columns", ["true", "false"])
def test_hot_loop_of_lists(object_code, opcodes, expected, columns):
    """Of sparse weights in panels: one step of k, from columns of x or from 14 pointers."""
    if columns == "false" and "clang" in backends.build_info()["compiler"]:
        pytest.skip("clang 14 keeps a few sums in memory beside the 14 pointers: slower, not wrong")
    pattern = rf"pyops::cpu::{expected.kernel}::.*list_sums<\d+, 2, {columns}>"
    loop = object_code.hottest_loop(pattern, expected.opcode.split()[0])
    assert_whole_tiles(opcodes(loop), expected)
    spilled = [i for i in loop if i.spills and (columns == "true" or "mm" in i.operands)]
    assert not spilled, f"{expected.kernel} spills in its hot loop"


@pytest.mark.parametrize("expected", FEW_ROWS, ids=lambda e: e.kernel)
def test_hot_loop_of_few_rows(object_code, opcodes, expected):
    pattern = rf"pyops::cpu::{expected.kernel}::.*few_(strips|strip|rows|rows_impl)\b"
    loop = object_code.hottest_loop(pattern, expected.opcode.split()[0])
    assert_whole_tiles(opcodes(loop), expected)
    spilled = [f"{i.mnemonic} {i.operands}" for i in loop if i.spills]
    assert not spilled, f"{expected.kernel} spills in its hot loop: {spilled}"
    spread = [i for i in loop if i.mnemonic.startswith("vpexpand")]
    assert len(spread) == 4
    assert not [i for i in spread if "(" in i.operands], "spreads from memory, which is slow"


@pytest.mark.parametrize("expected", INT8_SPARSE, ids=lambda e: e.kernel)
@pytest.mark.parametrize("run", ["add_pairs<4>", "add_quad<0, "])
def test_hot_loop_of_sparse_codes(object_code, opcodes, expected, run):
    if "clang" in backends.build_info()["compiler"]:
        pytest.skip("clang 14 inlines the runs, so that no function of that name has the loop")
    pattern = rf"pyops::cpu::{expected.kernel}::.*::{run}"
    loop = object_code.hottest_loop(pattern, expected.opcode)
    pairs = expected.kernel == "avx512vnni" and run.startswith("add_pairs")
    assert_whole_tiles(opcodes(loop), expected._replace(multiple_of=8) if pairs else expected)
    stored = [i for i in loop if i.spills and i.operands.endswith(")")]
    # 8 sums and 8 vectors of codes are all registers: two codes wait on the stack for weights.
    allowed = 2 if expected.kernel == "avx2" and run.startswith("add_pairs") else 0
    assert len(stored) <= allowed, f"{expected.kernel} stores sums in its hot loop"


@pytest.mark.parametrize(("run", "sums"), [("add_pairs<4>", 8), ("add_quad<4>", 16)])
def test_hot_loop_of_sparse_pairs(object_code, opcodes, run, sums):
    if "clang" in backends.build_info()["compiler"]:
        pytest.skip("clang 14 inlines the runs, so that no function of that name has the loop")
    pattern = rf"pyops::cpu::avx512bf16::.*::{run}"
    loop = object_code.hottest_loop(pattern, "vdpbf16ps zmm")
    assert_whole_tiles(opcodes(loop), Expected("avx512bf16", "vdpbf16ps zmm", sums))
    assert not [i for i in loop if i.spills]
    mixed = [i for i in loop if i.mnemonic.startswith("vpunpck")]
    assert mixed
    assert not [i for i in mixed if "(" in i.operands], "reads a row of x twice"


@pytest.mark.parametrize("expected", PANELS, ids=lambda e: e.kernel)
@pytest.mark.parametrize("form", ["quads", "windows8", "windows16"])
def test_hot_loop_of_panels(object_code, opcodes, expected, form):
    loop = object_code.hottest_loop(
        rf"pyops::cpu::{expected.kernel}::.*::{form}::tile<", expected.opcode
    )
    counts = opcodes(loop)
    quads, windows = {24: (16, 24), 12: (12, 6)}[expected.multiple_of]
    multiple_of = quads if form == "quads" else windows
    assert_whole_tiles(counts, expected._replace(multiple_of=multiple_of))
    picks = counts[expected.opcode.replace("vpdpbusd", "vpshufb")]
    assert picks == (0 if form == "quads" else counts[expected.opcode])
    spilled = [f"{i.mnemonic} {i.operands}" for i in loop if i.spills and "mm" in i.operands]
    assert not spilled, f"{expected.kernel} spills in its hot loop: {spilled}"


@pytest.mark.parametrize("expected", DEPTHWISE, ids=lambda e: e.kernel)
def test_hot_loop_of_depthwise_codes(object_code, opcodes, expected):
    pattern = rf"pyops::cpu::{expected.kernel}::.*::slide<"
    loop = object_code.hottest_loop(pattern, expected.opcode)
    assert_whole_tiles(opcodes(loop), expected)
    if "clang" in backends.build_info()["compiler"]:
        pytest.skip("clang 14 keeps columns and sums of a round in memory")
    # Operands may come from the stack: with vpmaddwd there are more of them than registers.
    stored = [i for i in loop if i.spills and i.operands.endswith(")")]
    assert not stored, f"{expected.kernel} stores sums in its hot loop"


@pytest.mark.parametrize(("kernel", "vex"), [("avxvnni", True), ("evexvnni", False)])
def test_encoding_of_avx_vnni(object_code, kernel, vex):
    """One body, two encodings: VEX for CPUs without AVX-512, EVEX so that others can test it."""
    loop = object_code.hottest_loop(rf"pyops::cpu::{kernel}::", "vpdpbusd ymm")
    dots = [i for i in loop if i.mnemonic == "vpdpbusd"]
    assert dots
    assert {i.vex for i in dots} == {vex}


def test_avx_vnni_holds_nothing_of_avx512(object_code):
    """CPUs with AVX-VNNI and without AVX-512 have no EVEX encoding at all."""
    for level in ("avx2", "avx2wide", "avxvnni"):
        for function in object_code.matching(rf"pyops::cpu::{level}::"):
            for i in function.body:
                assert "%zmm" not in i.operands, function.name
                assert "{%k" not in i.operands, function.name
                assert "%k" not in i.operands, function.name
                registers = {f"%{w}mm{n}" for w in "xy" for n in range(16, 32)}
                named = {r.strip("(){},") for r in i.operands.replace(",", " ").split()}
                assert not registers & named, function.name


def test_generic_code_runs_everywhere(object_code, beyond_sse2):
    """Outside the ISA namespaces there is no VEX or EVEX instruction, and nothing beyond SSE2."""
    inside = re.compile(ISA_NAMESPACE)
    outside = [f for f in object_code.functions if not inside.search(f.name)]
    assert any("pyops::cpu::generic::" in f.name for f in outside)
    for function in outside:
        for i in function.body:
            assert not i.is_vex_or_evex, f"{function.name}: {i.mnemonic} {i.operands}"
            assert not beyond_sse2.fullmatch(i.mnemonic), f"{function.name}: {i.mnemonic}"


def test_nothing_is_fused(object_code):
    """A fused multiply-add rounds once where the contract rounds twice."""
    for function in object_code.functions:
        if FLOAT_PRODUCTS.search(function.name) or SPARSE_PRODUCTS.search(function.name):
            continue
        fused = [i for i in function.body if i.mnemonic.startswith(("vfm", "vfnm"))]
        assert not fused, f"{function.name}: {fused[0].mnemonic}"


SAMPLE = """
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma")
int leaked(const int* p, int n) {
  __m256i sum = _mm256_setzero_si256();
  for (int i = 0; i < n; i += 16) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(*(const __m256i*)(p + i), sum));
  }
  return _mm256_extract_epi32(sum, 0);
}
float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#pragma GCC pop_options
"""


def test_the_reader_sees_what_it_looks_for(disassemble, opcodes, tmp_path):
    """The checks above can fail: each finds its target in a sample that has it."""
    gcc = shutil.which("g++")
    if gcc is None:
        pytest.skip("g++ is not installed")
    source = tmp_path / "sample.cpp"
    source.write_text(SAMPLE)
    subprocess.run([gcc, "-O2", "-c", str(source), "-o", str(tmp_path / "sample.o")], check=True)
    code = disassemble(tmp_path / "sample.o")
    loop = code.hottest_loop("leaked", "vpmaddwd ymm")
    assert opcodes(loop)["vpmaddwd ymm"] == 1
    assert any(i.is_vex_or_evex for i in code.matching("leaked")[0].body)
    assert any(i.mnemonic.startswith("vfm") for i in code.matching("fused")[0].body)

"""Reads the object code of the compiled module: functions, loops, instructions."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from pyops import backends

FUNCTION = re.compile(r"^([0-9a-f]+) <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(.*)$")
TARGET = re.compile(r"^([0-9a-f]+) <")
PREFIXES = {"{vex}", "{evex}", "lock", "rep", "repz", "repnz", "bnd", "notrack", "data16", "cs"}

# Instructions that are VEX-coded and don't begin with "v": masks, BMI, AMX.
VEX_WITHOUT_V = re.compile(
    r"k(mov|and|andn|or|xnor|xor|not|ortest|test|unpck|shift|add)\w*"
    r"|andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx"
    r"|tile\w+|(ld|st)tilecfg|tdp\w+"
)
# Legacy-coded instructions of SSE3 and later, which the first x86-64 CPUs lack.
BEYOND_SSE2 = re.compile(
    r"pshufb|pmadd(ubsw)|pabs[bwd]|pmulhrsw|palignr|ph(add|sub)\w+|psign[bwd]|pmov[sz]x\w+|pmulld"
    r"|pmuldq|p(min|max)(sb|sd|uw|ud)|ptest|pblend\w+|blendv?p[sd]|round[ps][sd]|insertps"
    r"|extractps|dpp[sd]|pcmpeqq|pcmpgtq|packusdw|h(add|sub)p[sd]|addsubp[sd]|mov(d|sh|sl)dup"
    r"|lddqu|popcnt|crc32\w*|movbe|pextr[bdq]|pinsr[bdq]|lzcnt"
)


class Instruction(NamedTuple):
    """One instruction; ``vex`` says that the disassembler had to mark it ``{vex}``."""

    address: int
    mnemonic: str
    operands: str
    vex: bool

    @property
    def registers(self) -> str:
        """The widest vector registers that it names: "zmm", "ymm", "xmm", "tmm" or ""."""
        return next((r for r in ("tmm", "zmm", "ymm", "xmm") if f"%{r}" in self.operands), "")

    @property
    def is_vex_or_evex(self) -> bool:
        name = self.mnemonic
        return self.vex or name.startswith("v") or VEX_WITHOUT_V.fullmatch(name) is not None

    @property
    def spills(self) -> bool:
        """Tell whether a vector register goes to the stack or comes from it.

        %rbp with an index is a pointer like any other: places on the stack have none.
        """
        return bool(self.registers) and re.search(r"\(%rsp[,)]|\(%rbp\)", self.operands) is not None


class Function(NamedTuple):
    name: str
    body: list[Instruction]

    def loops(self, mnemonic: str) -> list[list[Instruction]]:
        """Return the innermost loops around ``mnemonic``; a loop is a backward jump and its target.

        A loop without it, such as a prefetch, may lie inside.
        """
        ranges = set()
        for at, instruction in enumerate(self.body):
            target = TARGET.match(instruction.operands)
            if instruction.mnemonic.startswith("j") and target is not None:
                to = int(target[1], 16)
                if self.body[0].address <= to <= instruction.address:
                    begin = next(i for i, x in enumerate(self.body) if x.address >= to)
                    ranges.add((begin, at + 1))
        held = [(b, e) for b, e in ranges if count(self.body[b:e])[mnemonic]]
        inner = [r for r in held if not any(o != r and r[0] <= o[0] and o[1] <= r[1] for o in held)]
        return [self.body[begin:end] for begin, end in inner]


class ObjectCode(NamedTuple):
    functions: list[Function]

    def matching(self, pattern: str) -> list[Function]:
        return [f for f in self.functions if re.search(pattern, f.name)]

    def hottest_loop(self, pattern: str, mnemonic: str) -> list[Instruction]:
        """Return, of the functions that match, the loop with most ``mnemonic``."""
        loops = [loop for f in self.matching(pattern) for loop in f.loops(mnemonic)]
        assert loops, f"no loop with {mnemonic} in a function that matches {pattern}"
        return max(loops, key=lambda loop: count(loop)[mnemonic])


def count(loop: list[Instruction]) -> Counter[str]:
    """Return how often each mnemonic occurs, and each as "mnemonic registers"."""
    counts = Counter(i.mnemonic for i in loop)
    counts.update(f"{i.mnemonic} {i.registers}" for i in loop if i.registers)
    return counts


def parse(lines: Iterator[str]) -> ObjectCode:
    functions: list[Function] = []
    for line in lines:
        if head := FUNCTION.match(line):
            functions.append(Function(head[2], []))
        elif (match := INSTRUCTION.match(line)) and functions:
            address, text = int(match[1], 16), match[2].split("#")[0].strip()
            words, vex = text.split(None, 1), False
            while words and words[0] in PREFIXES and len(words) > 1:
                vex = vex or words[0] in ("{vex}", "{evex}")
                words = words[1].split(None, 1)
            operands = words[1] if len(words) > 1 else ""
            if words and words[0] != "(bad)":
                functions[-1].body.append(Instruction(address, words[0], operands, vex))
    return ObjectCode([f for f in functions if f.body])


@pytest.fixture(scope="session")
def build(root: Path) -> Callable[..., Path]:
    """Compiles C++ sources into a program, with the module's own flags and more."""
    if not backends.compiled():
        pytest.skip(f"nothing is compiled: {backends.why_not_compiled()}")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    # Without NDEBUG, so that assertions count.
    flags = [f for f in backends.build_info()["flags"].split() if f != "-DNDEBUG"]

    def run(program: Path, sources: Sequence[Path], *extra: str) -> Path:
        def compile_one(numbered: tuple[int, Path]) -> str:
            number, source = numbered
            obj = str(program.with_name(f"{number}-{source.stem}.o"))
            includes = ["-I", str(root / "csrc")]
            command = [*compiler, *flags, *extra, *includes, "-c", str(source), "-o", obj]
            subprocess.run(command, check=True)
            return obj

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, enumerate(sources)))
        subprocess.run([*compiler, *extra, *objects, "-o", str(program)], check=True)
        return program

    return run


@pytest.fixture(scope="session")
def without_torch(root: Path) -> Callable[[Path], bool]:
    """Whether a C++ file of csrc includes nothing of torch, in whatever depth."""

    @cache
    def plain(path: Path) -> bool:
        names = re.findall(r'^#include [<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)
        own = [root / "csrc" / name for name in names]
        foreign = any(name.startswith("torch/") for name in names)
        return not foreign and all(plain(header) for header in own if header.is_file())

    return plain


@pytest.fixture(scope="session")
def sanitize() -> tuple[str, ...]:
    """The flags of a build under sanitizers."""
    return ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


@pytest.fixture
def qemu() -> str:
    """The emulator of x86-64 CPUs."""
    found = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if found is None:
        pytest.skip("qemu-x86_64 (Debian: qemu-user) is not installed")
    return found


@pytest.fixture(scope="session")
def disassemble() -> Callable[[Path], ObjectCode]:
    """Disassembles an object or a library with objdump."""
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("objdump (binutils) is not installed")

    def run(path: Path) -> ObjectCode:
        command = [
            objdump,
            "--disassemble",
            "--demangle",
            "--no-show-raw-insn",
            "--wide",
            str(path),
        ]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return parse(iter(text.splitlines()))

    return run


@pytest.fixture(scope="session")
def object_code(disassemble: Callable[[Path], ObjectCode]) -> ObjectCode:
    """The compiled module, disassembled once."""
    if not backends.compiled():
        pytest.skip(f"nothing is compiled: {backends.why_not_compiled()}")
    from pyops import _C

    return disassemble(Path(_C.__file__))


@pytest.fixture(scope="session")
def opcodes() -> Callable[[list[Instruction]], Counter[str]]:
    return count


@pytest.fixture(scope="session")
def beyond_sse2() -> re.Pattern[str]:
    return BEYOND_SSE2

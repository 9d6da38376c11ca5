"""int8_linear_group and int8_mlp: bit for bit the reference, and int8_linear layer by layer."""

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.ops import packing
from pyops.ops.int8_gemm_reference import int8_linear_group_reference, int8_mlp_reference
from pyops.testing.cases.int8_gemm import GroupCase, MlpCase, group_case, mlp_case, random_codes
from pyops.testing.compare import assert_same
from pyops.testing.guarded import guarded
from pyops.testing.shapes import simd_sizes

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SIZES = simd_sizes(100)
ROWS = (1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 97, 128, 200)


def picked(seed: int, *choices: list[int] | tuple[int, ...] | range) -> list[int]:
    rng = torch.Generator().manual_seed(seed)
    return [c[int(torch.randint(len(c), (), generator=rng))] for c in choices]


def random_group(seed: int) -> GroupCase:
    count, m, k, *ns = picked(seed, range(1, 5), ROWS, [0, *SIZES], *[SIZES] * 4)
    return group_case(seed, m, ns[:count], k)


def random_mlp(seed: int) -> MlpCase:
    return mlp_case(seed, *picked(seed, ROWS, SIZES, SIZES, [0, *SIZES]))


def assert_all_same(out: list[Tensor], expected: list[Tensor], label: str) -> None:
    assert len(out) == len(expected)
    for i, (a, b) in enumerate(zip(out, expected, strict=True)):
        assert_same(a, b, f"{label} [{i}]")


def test_groups_equal_the_reference(kernel: str) -> None:
    for seed in range(120):
        case = random_group(seed)
        out, label = case.run(), f"{kernel} seed {seed} {case.label}"
        assert_all_same(out, case.reference(), label)
        assert_all_same(out, case.chained(), f"chained {label}")


def test_mlps_equal_the_reference(kernel: str) -> None:
    for seed in range(120):
        case = random_mlp(seed)
        out, label = case.run(), f"{kernel} seed {seed} {case.label}"
        assert_same(out, case.reference(), label)
        assert_same(out, case.chained(), f"chained {label}")


def test_the_cases_cover_every_option() -> None:
    """What the two tests above draw, so that no option goes missing with a change of seeds."""
    groups, mlps = [random_group(s) for s in range(120)], [random_mlp(s) for s in range(120)]
    assert {len(case.members) for case in groups} == {1, 2, 3, 4}
    assert any(len({m.activation for m in case.members}) == 4 for case in groups)
    assert {case.up.activation for case in mlps} == set(ops.ACTIVATIONS)
    assert {case.up.x.dtype for case in mlps} == {case.up.out_dtype for case in mlps} == {*FLOATS}
    residuals = {None if c.down.residual is None else c.down.residual.dtype for c in mlps}
    assert residuals == {None, *FLOATS}
    biases = {(case.up.bias is None, case.down.bias is None) for case in mlps}
    assert len(biases) == 4


@pytest.mark.parametrize("dimension", ["m", "hidden", "n", "k"])
def test_every_tail_of_an_mlp(kernel: str, dimension: str) -> None:
    for size in SIZES:
        sizes = {"m": 37, "hidden": 66, "n": 35, "k": 68, dimension: size}
        case = mlp_case(size, **sizes)
        assert_same(case.run(), case.chained(), f"{kernel} {case.label}")


def test_every_tail_of_a_group(kernel: str) -> None:
    """The columns of a member start at a whole panel of the product, wherever the last one ends."""
    for size in SIZES:
        case = group_case(size, 9, [size, 17, size], 68)
        assert_all_same(case.run(), case.chained(), f"{kernel} {case.label}")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_do_not_depend_on_threads(kernel: str, threads: int) -> None:
    """Rows 5 and 60 go layer by layer at some numbers of threads, 128 and 400 by blocks of rows."""
    mlps = [mlp_case(m, m, 530, 260, 250) for m in (5, 60, 128, 400)]
    groups = [group_case(m, m, [130, 333, 70], 260) for m in (1, 5, 97, 300)]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = [case.chained() for case in mlps], [case.chained() for case in groups]
        torch.set_num_threads(threads)
        for case, out in zip(mlps, expected[0], strict=True):
            assert_same(case.run(), out, f"{kernel} {threads} threads {case.label}")
        for group, outs in zip(groups, expected[1], strict=True):
            assert_all_same(group.run(), outs, f"{kernel} {threads} threads {group.label}")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("m", "hidden", "n", "k"),
    [(0, 5, 6, 7), (3, 5, 0, 7), (3, 0, 6, 7), (3, 5, 6, 0), (3, 0, 6, 0), (0, 0, 0, 0),
     (40, 0, 6, 7), (200, 0, 6, 0), (200, 5, 6, 0)],
)  # fmt: skip
def test_empty_sizes(kernel: str, m: int, hidden: int, n: int, k: int) -> None:
    for seed in range(6):
        case = mlp_case(seed, m, hidden, n, k)
        assert_same(case.run(), case.reference(), f"{kernel} {case.label}")
        group = group_case(seed, m, [n, hidden, 5], k)
        assert_all_same(group.run(), group.reference(), f"{kernel} {group.label}")


def test_bad_rows_stay_alone(kernel: str) -> None:
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(70, 40, generator=rng)
    x[2, 39], x[5, 0], x[69, 7] = torch.nan, -torch.inf, torch.inf
    bad = [r in (2, 5, 69) for r in range(70)]
    up, scale_up = ops.quantize_weight(torch.randn(33, 40, generator=rng))
    down, scale_down = ops.quantize_weight(torch.randn(21, 33, generator=rng))
    packed_up, packed_down = ops.int8_pack(up), ops.int8_pack(down)
    both = ops.int8_linear_group(x, [packed_up] * 2, [scale_up] * 2, activation=["relu", "none"])
    mlp = ops.int8_mlp(x, packed_up, scale_up, None, packed_down, scale_down, None)
    for out in (*both, mlp):
        assert torch.isnan(out).all(1).tolist() == bad
        assert torch.isfinite(out[~torch.tensor(bad)]).all()


def test_hidden_values_that_overflow_spoil_their_row_alone(kernel: str) -> None:
    """float16 hidden values may become Inf, which the second quantizer has to report."""
    case = mlp_case(3, 40, 12, 9, 8)
    case.up.out_dtype = case.down.out_dtype = torch.float16
    case.up.x = torch.ones(40, 8)
    case.up.x[11] = 1e9
    case.up.activation, case.down.residual = "none", None
    out = case.run()
    assert_same(out, case.chained(), kernel)
    assert torch.isnan(out[11]).all()
    assert torch.isfinite(out[torch.arange(40) != 11]).all()


def test_nothing_is_read_behind_a_buffer(kernel: str) -> None:
    """Inputs end at an unmapped page: one byte too far is a fault."""
    keep: list[object] = []
    for m, n, h, k in ((1, 1, 1, 1), (7, 17, 3, 5), (70, 70, 35, 67), (8, 64, 128, 64)):
        rng = torch.Generator().manual_seed(m)
        up = guarded(ops.int8_pack(random_codes(rng, h, k, True, 0)), keep)
        also = guarded(ops.int8_pack(random_codes(rng, n, k, True, 0)), keep)
        down = guarded(ops.int8_pack(random_codes(rng, n, h, True, 0)), keep)
        ones = [guarded(torch.rand(size) * 1e-3, keep) for size in (h, n, h, n)]
        for dtype in FLOATS:
            x = guarded(torch.randn(m, k, generator=rng).to(dtype), keep)
            residual = guarded(torch.randn(m, n, generator=rng).to(dtype), keep)
            ops.int8_linear_group(x, [up, also], ones[:2], ones[2:], activation=["gelu", "silu"])
            ops.int8_mlp(x, up, ones[0], ones[2], down, ones[1], ones[3], residual=residual)


def test_the_plain_layout_is_one_too() -> None:
    """The references take the plain packing, and the kernels refuse it unless it is theirs."""
    case, group = mlp_case(1, 4, 8, 8, 8), group_case(1, 4, [8, 8], 8)
    plain = packing.pack_plain(case.up.weight)
    scale = case.up.scale_w
    assert int8_mlp_reference(case.up.x, plain, scale, None, 0, plain, scale, None, None, 0).shape
    assert int8_linear_group_reference(group.members[0].x, [plain], [scale], [], [0], 0)
    if backends.layout("int8_gemm") == "plain":
        return
    with pytest.raises(RuntimeError, match="the weight is packed as"):
        ops.int8_linear_group(
            group.members[0].x, [ops.int8_pack(case.up.weight), plain], [scale] * 2
        )
    with pytest.raises(RuntimeError, match="the weight is packed as"):
        ops.int8_mlp(case.up.x, ops.int8_pack(case.up.weight), scale, None, plain, scale, None)

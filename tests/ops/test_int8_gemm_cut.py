"""Cut layouts (``csrc/cpu/int8_gemm/cut.h``): exact for any weight, or left to the next kernel."""

import itertools

import pytest
import torch
from torch import Tensor

import pyops
from pyops import backends, ops
from pyops.nn import Int8Linear, PackedWeight
from pyops.ops import packing
from pyops.testing.compare import assert_same

ROWS = backends.implementations("int8_gemm")
CUT = [row.name for row in ROWS if row.layout.endswith("cut") and row.available]
pytestmark = pytest.mark.skipif(not CUT, reason="no kernel of a cut layout runs here")


@pytest.fixture(params=CUT)
def cut(request):
    """Each kernel of a cut layout, forced; its layout, and that of the next row."""
    at = next(i for i, row in enumerate(ROWS) if row.name == request.param)
    with backends.force("int8_gemm", request.param):
        yield ROWS[at].layout, ROWS[at + 1].layout


def normal(n: int, k: int, seed: int = 0) -> Tensor:
    """A weight that fills the int8 range as the quantizer leaves it."""
    generator = torch.Generator().manual_seed(seed)
    return ops.quantize_weight(torch.randn(n, k, generator=generator))[0]


def conflicts(count: int, n: int = 256, k: int = 1024) -> Tensor:
    """A weight that leaves exactly ``count`` cuts.

    In a group of these two columns one pair is not safe, whatever window and signs it takes.
    """
    weight = torch.zeros(n // 16, 16, k // 4, 4, dtype=torch.int8)
    for i in range(count):
        weight[i % (n // 16), 3, i // (n // 16)] = torch.tensor([127, 127, 10, 10])
        weight[i % (n // 16), 9, i // (n // 16)] = torch.tensor([127, -127, 10, 10])
    return weight.reshape(n, k)


def check(weight: Tensor, m: int = 7) -> Tensor:
    """Unpacking, and products with uint8 codes, all 255 and random, and with int8 codes."""
    n, k = weight.shape
    packed = ops.int8_pack(weight)
    assert_same(ops.int8_unpack(packed, n, k), weight, "unpacked")
    a = torch.randint(0, 256, (m, k), dtype=torch.uint8)
    a[0], a[1 % m] = 255, 0
    zero = torch.randint(0, 256, (m,), dtype=torch.int32)
    exact = weight.double().T
    for codes in (a, (a.int() - 128).to(torch.int8)):
        out = ops.int8_gemm(codes, packed, n, zero_point_a=zero, out_dtype=torch.int32)
        sums = ((codes.double() - zero[:, None]) @ exact).long()
        wrapped = (sums + 2**31) % 2**32 - 2**31  # as documented, with a zero point
        assert_same(out.long(), wrapped, "product")
    return packed


def layout(packed: Tensor) -> str:
    return packing.read_header(packed).layout


def test_the_next_row_has_the_same_level():
    for row, following in itertools.pairwise(ROWS):
        if row.layout.endswith("cut"):
            assert following.isa == row.isa
            assert not following.layout.endswith("cut")


@pytest.mark.parametrize("m", [1, 2, 5, 6, 7, 97, 200])
@pytest.mark.parametrize(("n", "k"), [(256, 256), (300, 520), (335, 1001), (640, 514), (64, 4096)])
def test_normal_weights_are_cut_and_exact(cut, m, n, k):
    packed = check(normal(n, k), m)
    assert layout(packed) == cut[0]
    assert packed.numel() + 4 * n <= 0.27 * 4 * n * k


@pytest.mark.parametrize("k", [255, 256, 2048])
@pytest.mark.parametrize(
    "pattern",
    [(127,), (-127,), (-128,), (127, -127), (127, 127, -127, -127), (-128, 127), (127, -128, -128),
     (127, 127, 127, -127), (128 // 2, 65, 64, 65), (-64, -65)],
    ids=str,
)  # fmt: skip
def test_constant_patterns(cut, pattern, k):
    row = torch.tensor(pattern * k, dtype=torch.int8)[:k]
    check(row.repeat(272, 1))
    check(torch.stack([row.roll(i) for i in range(272)]))


def test_largest_depth(cut):
    weight = torch.full((33, packing.MAX_K), 127, dtype=torch.int8)
    assert layout(check(weight)) == cut[0]
    weight[:, 1::2] *= -1
    assert layout(check(weight)) == cut[0]


def test_the_limit(cut):
    limit = 256 * 1024 // 256
    for count, expected in ((limit - 1, cut[0]), (limit, cut[0]), (limit + 1, cut[1])):
        packed = check(conflicts(count))
        assert layout(packed) == expected
        assert packed.numel() <= 256 * 1024 * 17 / 16


def test_uniform_weights_go_to_the_next_kernel(cut):
    weight = torch.randint(-127, 128, (128, 256), dtype=torch.int8)
    assert layout(check(weight)) == cut[1]


def test_a_weight_passed_on_is_packed_once(cut, monkeypatch):
    from pyops.nn import packed_weight

    packs = []
    monkeypatch.setattr(packed_weight, "int8_pack", lambda w: packs.append(1) or ops.int8_pack(w))
    for weight, expected in ((normal(256, 256), 0), (conflicts(2000), 1)):
        packs.clear()
        layer = Int8Linear(PackedWeight(weight, torch.ones(256)))
        data = layer.packed.get()
        pyops.isa.changed()
        assert layer.packed.get() is data
        assert len(packs) == 1
        assert layer.packed.layout == cut[expected]
        names = [row.name for row in ROWS]
        at = names.index(backends.kernel("int8_gemm"))
        assert pyops.explain(layer).rows[0].kernel == names[at + expected]


def test_damaged_cuts_stay_inside(cut):
    """Any bytes behind the header may be wrong: the result is, and nothing else is touched."""
    weight = normal(300, 520)
    good = ops.int8_pack(weight)
    x, scale = torch.randn(20, 520), torch.ones(300)
    generator = torch.Generator().manual_seed(0)
    for fill in range(20):
        bad = good.clone()
        values = torch.randint(0, 256, bad.shape, dtype=torch.uint8, generator=generator)
        kinds = (values, torch.full_like(values, 255), torch.zeros_like(values))
        bad[packing.HEADER_BYTES :] = kinds[fill % 3][packing.HEADER_BYTES :]
        ops.int8_linear(x, bad, scale)
        ops.int8_unpack(bad, 300, 520)


@pytest.mark.parametrize(("offset", "value"), [(20, 0), (20, 2), (20, 255), (40, 255), (47, 128)])
def test_damaged_headers_are_refused(cut, offset, value):
    """Whether it is cut, and how many cuts there are."""
    bad = ops.int8_pack(normal(300, 520)).clone()
    bad[offset] = value
    with pytest.raises((RuntimeError, ValueError), match="packed weight: its"):
        ops.int8_linear(torch.randn(2, 520), bad, torch.ones(300))
    with pytest.raises((RuntimeError, ValueError), match="packed weight: its"):
        ops.int8_unpack(bad, 300, 520)

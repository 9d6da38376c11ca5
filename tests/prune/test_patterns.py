"""Masks of every pattern against brute force, and what has to hold of any of them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pyops
from pyops.prune.matrix import matrix_of, spread, unit_sizes, unit_sums, weight_of
from pyops.prune.patterns import PATTERNS, pattern_of
from pyops.prune.patterns.base import Scored

NAMES = ["unstructured", "block:2x3", "block:4x1", "block:1x5", "block:7x9"]
N_M = ["2:4", "1:4", "2:8", "3:5", "2:4x3", "1:3x16"]


def units_of(shape, rows, cols):
    """The (row, column) pairs of each unit, in the order of their index."""
    for top in range(0, shape[0], rows):
        for start in range(0, shape[1], cols):
            yield [
                (i, j)
                for i in range(top, min(top + rows, shape[0]))
                for j in range(start, min(start + cols, shape[1]))
            ]


def brute_units(weights, rows, cols, sparsity):
    """All units of all weights in the order in which they go."""
    listed, saved = [], set()
    for index, scores in enumerate(weights):
        means = [
            (Fraction(sum(int(scores[at]) for at in unit), len(unit)), index, number, unit)
            for number, unit in enumerate(units_of(scores.shape, rows, cols))
        ]
        saved.add(max(means, key=lambda one: (one[0], one[2]))[1:3])
        listed += means
    count = round(sparsity * len(listed))
    masks = [torch.ones(scores.shape, dtype=torch.bool) for scores in weights]
    going = sorted((one for one in listed if one[1:3] not in saved), key=lambda one: one[:3])
    for _, index, _, unit in going[:count]:
        for at in unit:
            masks[index][at] = False
    return masks


def brute_n_of_m(scores, n, m, t):
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for top in range(0, scores.shape[0], t):
        band = scores[top : top + t]
        for start in range(0, scores.shape[1], m):
            inputs = range(start, min(start + m, scores.shape[1]))
            best = sorted(inputs, key=lambda j: (int(band[:, j].sum()), j), reverse=True)
            for j in best[:n]:
                mask[top : top + t, j] = True
    return mask


shapes = st.tuples(st.integers(1, 11), st.integers(1, 19))


def some_scores(shape, seed, values=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, values, shape, generator=generator).float()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(shapes, min_size=1, max_size=3),
    st.sampled_from(NAMES),
    st.floats(0.01, 0.99),
    st.integers(0, 9999),
)
def test_units_against_brute_force(sizes, name, sparsity, seed):
    pattern = pattern_of(name)
    scores = [some_scores(shape, seed + i) for i, shape in enumerate(sizes)]
    masks = pattern.masks([Scored(one) for one in scores], sparsity)
    expected = brute_units(scores, pattern.rows, pattern.cols, sparsity)
    for mask, other in zip(masks, expected, strict=True):
        assert mask.dtype == torch.bool
        assert torch.equal(mask, other)
        assert mask.any()


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(N_M), st.integers(0, 9999))
def test_n_of_m_against_brute_force(shape, name, seed):
    pattern = pattern_of(name)
    scores = some_scores(shape, seed)
    (mask,) = pattern.masks([Scored(scores)], pattern.sparsity)
    assert torch.equal(mask, brute_n_of_m(scores, pattern.n, pattern.m, pattern.rows))
    left = int(mask.sum())
    per_row = shape[1] // pattern.m * pattern.n + min(pattern.n, shape[1] % pattern.m)
    assert left == shape[0] * per_row
    bands = -(-shape[0] // pattern.rows)
    gone = bands * (shape[1] - per_row)
    assert pattern.removes([shape], pattern.sparsity, False) == gone


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(NAMES), st.floats(0.01, 0.99), st.integers(0, 9999))
def test_units_by_row(shape, name, sparsity, seed):
    pattern = pattern_of(name)
    scores = some_scores(shape, seed)
    mask = pattern.masks_by_row(Scored(scores), sparsity)
    for top in range(0, shape[0], pattern.rows):
        band = scores[top : top + pattern.rows]
        expected = brute_units([band], pattern.rows, pattern.cols, sparsity)[0]
        assert torch.equal(mask[top : top + pattern.rows], expected)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(NAMES + N_M), st.floats(0, 0.9), st.floats(0, 0.9), st.data())
def test_what_is_gone_stays_gone_and_counts(shape, name, first, more, data):
    """Two steps remove as much as one, and masks only shrink, whatever the scores are now."""
    pattern = pattern_of(name)
    seed = data.draw(st.integers(0, 9999))
    second = first + (0.99 - first) * more
    one = Scored(some_scores(shape, seed))
    (before,) = pattern.masks([one], first)
    (after,) = pattern.masks([Scored(some_scores(shape, seed + 1), before)], second)
    (at_once,) = pattern.masks([Scored(some_scores(shape, seed + 1))], second)
    assert not bool((after & ~before).any())

    def gone(mask):
        return int((unit_sums(mask.float(), pattern.rows, pattern.cols) == 0).sum())

    assert gone(after) == gone(at_once) == pattern.removes([shape], second, False)


def test_equal_scores_go_by_index():
    (mask,) = pattern_of("unstructured").masks([Scored(torch.ones(2, 4))], 0.5)
    assert mask.tolist() == [[False] * 4, [True] * 4]
    (mask,) = pattern_of("2:4").masks([Scored(torch.ones(1, 6))], 0.5)
    assert mask.tolist() == [[False, False, True, True, True, True]]


def test_a_smaller_last_block_is_not_worth_less():
    scores = torch.tensor([[1.0, 1, 1, 9]])
    (mask,) = pattern_of("block:1x3").masks([Scored(scores)], 0.5)
    assert mask.tolist() == [[False, False, False, True]]


def test_on_the_way_to_n_of_m():
    scores = torch.arange(8.0).view(1, 8)
    kept = [
        int(pattern_of("2:8").masks([Scored(scores)], share)[0].sum())
        for share in (0, 0.1, 0.125, 0.2, 0.5, 0.75)
    ]
    assert kept == [8, 8, 7, 7, 4, 2]


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Conv2d(4, 8, 3, groups=2), "Conv2d"),
        (nn.Conv1d(6, 4, 5), "Conv1d"),
        (nn.Linear(7, 3), "Linear"),
    ],
)
def test_matrix_of_a_weight(layer, name):
    weight = layer.weight.detach()
    matrix = matrix_of(weight)
    if name == "Conv2d":
        expected = [[float(weight[o, c, y, x]) for y in range(3) for x in range(3)
                     for c in range(2)] for o in range(8)]  # fmt: skip
    elif name == "Conv1d":
        expected = [[float(weight[o, c, x]) for x in range(5) for c in range(6)] for o in range(4)]
    else:
        expected = weight.tolist()
    assert matrix.tolist() == expected
    for like in (weight, weight.transpose(0, 1).contiguous().transpose(0, 1)):
        assert torch.equal(weight_of(matrix, like), weight)
        assert weight_of(matrix, like).stride() == like.stride()


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(1, 5), st.integers(1, 5))
def test_unit_sums_and_spread(shape, rows, cols):
    matrix = some_scores(shape, 0)
    listed = list(units_of(shape, rows, cols))
    sums = unit_sums(matrix, rows, cols)
    assert sums.flatten().tolist() == [sum(float(matrix[at]) for at in unit) for unit in listed]
    assert unit_sizes(shape, rows, cols).flatten().tolist() == [len(unit) for unit in listed]
    back = spread(sums, rows, cols, shape)
    assert back.shape == matrix.shape
    for unit, value in zip(listed, sums.flatten(), strict=True):
        assert all(back[at] == value for at in unit)


@pytest.mark.parametrize("row", PATTERNS, ids=lambda row: row.form)
def test_every_pattern_of_the_table_prunes_a_model(row):
    name = {
        "unstructured": "unstructured",
        "N:M": "2:4",
        "N:MxT": "2:4x8",
        "block:RxC": "block:4x2",
    }
    new = pyops.prune(nn.Sequential(nn.Linear(32, 16)), pattern=name[row.form])
    assert new[0].sparsity == (
        0.5 if name[row.form].startswith("2:4") else pytest.approx(0.9, abs=0.02)
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "2of4",
            "prune: pattern is '2of4', expected one of 'N:M', 'N:MxT', 'block:RxC', 'unstructured'",
        ),
        ("4:4", "prune: pattern is '4:4', expected 1 <= N < M and T of at least 1 in 'N:MxT'"),
        ("0:4", "prune: pattern is '0:4', expected 1 <= N < M and T of at least 1 in 'N:MxT'"),
        ("2:4x0", "prune: pattern is '2:4x0', expected 1 <= N < M and T of at least 1 in 'N:MxT'"),
        (
            "block:0x4",
            "prune: pattern is 'block:0x4', expected R and C of at least 1 in 'block:RxC'",
        ),
        (
            " 2:4",
            "prune: pattern is ' 2:4', expected one of 'N:M', 'N:MxT', 'block:RxC', 'unstructured'",
        ),
        ("", "prune: pattern is '', expected one of 'N:M', 'N:MxT', 'block:RxC', 'unstructured'"),
    ],
)
def test_bad_names(name, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared)
        pattern_of(name)
    assert str(error.value) == message


def test_a_name_of_another_type():
    with pytest.raises(TypeError, match=r"^prune: pattern is a int, expected a str$"):
        pattern_of(4)

"""Spearman's rho and cosines; the word lists where they are installed."""

from __future__ import annotations

import pytest
import torch

from pyops.testing.models import packages, similarity


def test_ranks_share_ties() -> None:
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])
    assert similarity.ranks(values).tolist() == [4, 1, 4, 2, 4]


def test_spearman_by_hand() -> None:
    first = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert similarity.spearman(first, first.exp()) == pytest.approx(1)
    assert similarity.spearman(first, -first) == pytest.approx(-1)
    # Without ties rho = 1 - 6 sum d^2 / (n (n^2 - 1)); here d = 1, 1, 0, 1, 1.
    swapped = torch.tensor([2.0, 1.0, 3.0, 5.0, 4.0])
    assert similarity.spearman(first, swapped) == pytest.approx(1 - 6 * 4 / (5 * 24))


def test_spearman_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 20, (200,), generator=generator)
    b = a + torch.randint(0, 30, (200,), generator=generator)
    expected = stats.spearmanr(a.numpy(), b.numpy()).statistic
    assert similarity.spearman(a, b) == pytest.approx(expected, abs=1e-12)


def test_spearman_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"spearman: a has shape \(3,\), b has \(2,\)"):
        similarity.spearman(torch.ones(3), torch.ones(2))


def test_cosines() -> None:
    mean, least = similarity.cosines(
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    )
    assert mean == pytest.approx((1 + 0.5**0.5) / 2)
    assert least == pytest.approx(0.5**0.5)


def test_missing_packages_say_how_to_install_them() -> None:
    with pytest.raises(
        packages.MissingPackageError,
        match=r"^package 'no_such' is not installed; run: pip install --no-deps no-such==1$",
    ):
        packages.folder("no_such", "no-such==1")
    with pytest.raises(
        packages.MissingPackageError,
        match=r"^not installed: no_such, none; run: pip install --no-deps no-such==1 none==2$",
    ):
        packages.require(("torch", "torch"), ("no_such", "no-such==1"), ("none", "none==2"))
    with pytest.raises(packages.MissingPackageError, match=r"no_such.txt does not exist; run: pip"):
        packages.file("torch", "torch==2.13.0", "no_such.txt")


def test_texts_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    half = 0.5**0.5
    cosines = torch.tensor([[1.0, 0.0, half], [0.0, 1.0, half], [half, half, 1.0]])
    texts = similarity.Texts(("a", "b", "c"), (3 * cosines + 1).double())
    assert texts.pearson(lambda texts: vectors) == pytest.approx(1)
    texts = similarity.Texts(("a", "b", "c"), (1 - cosines).double())
    assert texts.pearson(lambda texts: 5 * vectors) == pytest.approx(-1)


def test_lee50() -> None:
    try:
        lee = similarity.lee50()
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    assert len(lee.texts) == 50
    assert lee.texts[0].startswith("The national executive of the strife-torn Democrats")
    news = similarity.news_sentences(64)
    assert len(set(news)) == 64
    assert all(text not in scored for text in news for scored in lee.texts)
    assert lee.scores.shape == (50, 50)
    assert lee.scores.diagonal().tolist() == [1.0] * 50
    assert int((lee.scores.triu(1) > 0).sum()) == 50 * 49 // 2


def test_word_lists() -> None:
    try:
        wordsim, simlex = similarity.wordsim353(), similarity.simlex999()
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    assert (len(wordsim.first), len(simlex.first)) == (353, 999)
    assert (wordsim.first[0], wordsim.second[0]) == ("love", "sex")
    assert wordsim.scores[0] == pytest.approx(6.77)
    assert float(simlex.scores.max()) <= 10

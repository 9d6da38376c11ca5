"""How well embeddings agree with people on the likeness of words and texts, and with each other.

WordSim-353: Finkelstein et al., "Placing search in context", 2002. SimLex-999: Hill et al.,
"SimLex-999", 2015. Lee-50: Lee, Pincombe and Welsh, "An empirical evaluation of models of text
document similarity", 2005. All files come in the package ``gensim`` (see ``packages``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import packages

DATA_PACKAGE = ("gensim", "gensim==4.4.0")
Embed = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class WordPairs:
    """Pairs of words with the mean score that people gave to their likeness."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: Tensor

    def rho(self, embed: Embed) -> float:
        """Return Spearman's rho of people's scores with the cosines of ``embed(words) [n, d]``."""
        words = sorted({*self.first, *self.second})
        row = {word: index for index, word in enumerate(words)}
        vectors = embed(words)
        first = vectors[[row[word] for word in self.first]]
        second = vectors[[row[word] for word in self.second]]
        return spearman(F.cosine_similarity(first, second), self.scores)


def load_word_pairs(file_name: str) -> WordPairs:
    """Return the pairs of ``wordsim353.tsv`` or ``simlex999.txt``.

    Raises:
        MissingPackageError: the package with the data is not installed.
    """
    path = packages.file(*DATA_PACKAGE, f"test/test_data/{file_name}")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    first, second, scores = zip(*rows, strict=True)
    return WordPairs(first, second, torch.tensor([float(score) for score in scores]))


def wordsim353() -> WordPairs:
    """Return WordSim-353. Raises MissingPackageError where the data is not installed."""
    return load_word_pairs("wordsim353.tsv")


def simlex999() -> WordPairs:
    """Return SimLex-999. Raises MissingPackageError where the data is not installed."""
    return load_word_pairs("simlex999.txt")


@dataclass(frozen=True)
class Texts:
    """Texts with the mean score that people gave to the likeness of each two.

    ``scores [n, n]``, float64, is read above its diagonal.
    """

    texts: tuple[str, ...]
    scores: Tensor

    def pearson(self, embed: Embed) -> float:
        """Return Pearson's correlation of the scores of each two texts with their cosines."""
        vectors = F.normalize(embed(self.texts).double(), dim=1)
        rows, columns = torch.triu_indices(len(self.texts), len(self.texts), offset=1)
        cosines = (vectors @ vectors.T)[rows, columns]
        return float(torch.corrcoef(torch.stack((cosines, self.scores[rows, columns])))[0, 1])


def lee50() -> Texts:
    """Return the 50 news texts of Lee. Raises MissingPackageError where they are not installed."""
    texts = packages.file(*DATA_PACKAGE, "test/test_data/lee.cor").read_text("latin-1")
    scores = packages.file(*DATA_PACKAGE, "test/test_data/similarities0-1.txt").read_text()
    rows = [[float(cell) for cell in line.split()] for line in scores.splitlines()]
    return Texts(tuple(texts.splitlines()), torch.tensor(rows, dtype=torch.float64))


def news_sentences(count: int) -> tuple[str, ...]:
    """Return the first sentences of ``count <= 300`` news texts that are not among Lee's 50.

    For calibration, so that no task is scored on what a model was calibrated with.

    Raises:
        MissingPackageError: the package with the data is not installed.
    """
    path = packages.file(*DATA_PACKAGE, "test/test_data/lee_background.cor")
    return tuple(text.partition(". ")[0] for text in path.read_text("latin-1").splitlines()[:count])


def ranks(values: Tensor) -> Tensor:
    """Return the ranks 1..n of ``values [n]``, float64; equal values share their mean rank."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank: Tensor = last - (counts.double() - 1) / 2
    return mean_rank[inverse]


def spearman(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of ``a [n]`` and ``b [n]``: Pearson's of the ranks.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"spearman: a has shape {tuple(a.shape)}, b has {tuple(b.shape)}")
    return float(torch.corrcoef(torch.stack((ranks(a), ranks(b))))[0, 1])


def cosines(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the mean and the smallest cosine between the rows of ``a`` and ``b``, ``[n, d]``."""
    each = F.cosine_similarity(a.double(), b.double(), dim=1)
    return float(each.mean()), float(each.min())

"""Scores MiniLM with zeros in its Linears against the dense model and against people's judgement.

python bench/pruned_quality.py
python bench/pruned_quality.py --sparsity 0.9 --steps 2000 --save tuned.safetensors

Pruned at once, by Wanda and by SparseGPT on sentences of Wikipedia, and what SparseGPT leaves
fine-tuned without labels to return what the dense model does (``distil.py``), in float32 and int8.
Columns: cosines to the dense model's embeddings of 64 sentences, mean and least; Spearman's rho of
the cosines of all pairs of them to the dense model's; WordSim353 and SimLex999 (Spearman's rho)
and Lee-50 (Pearson) against people. No text of these tasks is trained on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from distil import Batch, Recipe, distil, fragments
from torch import Tensor, nn

import pyops
from pyops.testing.models import minilm, packages, similarity, texts
from pyops.testing.models.sentences import SENTENCES

CALIBRATION_BATCHES, CALIBRATION_TEXTS = 4, 64
TRAINING_TOKENS = 32
CRITERIA = ("wanda", "sparsegpt")
Embed = Callable[[Sequence[str]], Tensor]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--sparsity", type=shares, default=[0.8, 0.9], help="such as 0.8,0.9")
    top.add_argument("--steps", type=int, default=300, help="of fine-tuning; 0: none")
    top.add_argument("--save", type=Path, metavar="OUT", help="of the last tuned model")
    return top


def shares(text: str) -> list[float]:
    """Return the numbers of "0.8,0.9".

    Raises:
        ValueError: one is not a share.
    """
    found = [float(part) for part in text.split(",")]
    if not all(0 < share < 1 for share in found):
        raise ValueError(f"wants shares between 0 and 1, got {text}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the scores; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        packages.require(minilm.WEIGHTS_PACKAGE, minilm.TOKENIZERS_PACKAGE, similarity.DATA_PACKAGE)
    except packages.MissingPackageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    dense, tokenizer = minilm.load_model(), minilm.load_tokenizer()
    score = Scorer(dense, tokenizer)
    print(f"{'':28s}" + "".join(f"{name:>12s}" for name in score.of(dense)))
    line("dense", score.of(dense))
    line("dense int8", score.of(pyops.quantize(dense)))
    for sparsity in options.sparsity:
        for name, model in pruned(dense, tokenizer, sparsity, options.steps):
            line(f"{sparsity:.0%} {name}", score.of(pyops.sparsify(model)))
            line(f"{sparsity:.0%} {name} int8", score.of(pyops.sparsify(model, dtype="int8")))
            if options.save:
                pyops.save(model, options.save)
    return 0


def line(name: str, scores: dict[str, float]) -> None:
    """Print one candidate."""
    print(f"{name:28s}" + "".join(f"{value:12.4f}" for value in scores.values()), flush=True)


def pruned(
    dense: nn.Module, tokenizer: Any, sparsity: float, steps: int
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the model pruned by each criterion, and the last one fine-tuned."""
    batches = calibration(tokenizer)
    for criterion in CRITERIA:
        model = pyops.prune(
            dense, sparsity, criterion=criterion, calibration=batches, include=nn.Linear
        )
        yield criterion, model.eval()
    if steps:
        start = time.perf_counter()
        tune(model, dense, training(tokenizer, Recipe(steps)), Recipe(steps))
        took = time.perf_counter() - start
        print(f"{steps} steps of fine-tuning took {took:.0f} s", flush=True)
        yield f"{criterion}, tuned", model


def calibration(tokenizer: Any) -> list[Batch]:
    """Return batches of sentences, spread over all of Wikipedia's."""
    sentences = texts.wikipedia_sentences()
    count = CALIBRATION_BATCHES * CALIBRATION_TEXTS
    chosen = sentences[:: len(sentences) // count][:count]
    parts = [chosen[i : i + CALIBRATION_TEXTS] for i in range(0, count, CALIBRATION_TEXTS)]
    return [minilm.tokenize(tokenizer, part) for part in parts]


def training(tokenizer: Any, recipe: Recipe) -> Iterator[Batch]:
    """Yield batches of sentences and fragments for ever, cut to a few tokens."""
    for chosen in fragments(texts.wikipedia_sentences(), recipe.batch):
        ids, mask = minilm.tokenize(tokenizer, chosen)
        yield ids[:, :TRAINING_TOKENS], mask[:, :TRAINING_TOKENS]


def tune(
    model: nn.Module, dense: nn.Module, batches: Iterator[Batch], recipe: Recipe
) -> list[float]:
    """Fine-tune the encoder's layers in place, not its embeddings; return the loss of each step."""
    model.requires_grad_(False)
    layers: Any = model.layers
    layers.requires_grad_(True)
    model.train()
    try:
        return distil(model, dense, batches, recipe)
    finally:
        model.requires_grad_(False)
        model.eval()


class Scorer:
    """Holds the tasks, and the dense model's embeddings of the sentences."""

    def __init__(self, dense: nn.Module, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.exact = minilm.embed(dense, tokenizer, SENTENCES)
        self.words = {
            "WordSim353": similarity.wordsim353(),
            "SimLex999": similarity.simlex999(),
        }
        self.lee = similarity.lee50()

    def of(self, model: nn.Module) -> dict[str, float]:
        """Return the score of each task."""

        def embed(chosen: Sequence[str]) -> Tensor:
            return minilm.embed(model, self.tokenizer, chosen)

        found = embed(SENTENCES)
        mean, least = similarity.cosines(found, self.exact)
        return {
            "cosine": mean,
            "least": least,
            "pairs": similarity.spearman(pairs(found), pairs(self.exact)),
            **{name: task.rho(embed) for name, task in self.words.items()},
            "Lee-50": self.lee.pearson(embed),
        }


def pairs(embeddings: Tensor) -> Tensor:
    """Return the cosine of each two rows, which have unit length."""
    count = len(embeddings)
    rows, columns = torch.triu_indices(count, count, offset=1)
    return (embeddings @ embeddings.T)[rows, columns]


if __name__ == "__main__":
    sys.exit(main())

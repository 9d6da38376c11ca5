"""The jobs of the demo: a trained model, inputs to time it on, and how good its results are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..testing.models import digits, minilm, packages, similarity
from ..testing.models.sentences import SENTENCES

BATCHES = (1, 32)
MINILM_TOKENS = 32


@dataclass(frozen=True)
class Job:
    """``inputs`` by batch size; ``scores(model)`` gives columns of the table, best value first."""

    title: str
    model: nn.Module
    inputs: Mapping[int, tuple[Tensor, ...]]
    scores: Callable[[nn.Module], dict[str, float]]
    never_slower: bool


def digits_job() -> Job:
    """The transformer on 8x8 digits that ships with the package, scored on its held-out images."""
    images, labels = digits.load_held_out()

    def scores(model: nn.Module) -> dict[str, float]:
        return {"accuracy": digits.accuracy(model, images, labels)}

    return Job(
        title=f"Digits transformer, accuracy on {len(images)} held-out images",
        model=digits.load_model(),
        inputs={batch: (images[:batch].float(),) for batch in BATCHES},
        scores=scores,
        never_slower=True,
    )


def minilm_job() -> Job:
    """all-MiniLM-L6-v2, scored on word pairs judged by people and by cosine to its fp32 self.

    Raises:
        MissingPackageError: the weights, the tokenizer or the word pairs are not installed.
    """
    packages.require(minilm.WEIGHTS_PACKAGE, minilm.TOKENIZERS_PACKAGE, similarity.DATA_PACKAGE)
    model, tokenizer = minilm.load_model(), minilm.load_tokenizer()
    tasks = {"WordSim353": similarity.wordsim353(), "SimLex999": similarity.simlex999()}
    exact = minilm.embed(model, tokenizer, SENTENCES)

    def scores(candidate: nn.Module) -> dict[str, float]:
        mean, least = similarity.cosines(minilm.embed(candidate, tokenizer, SENTENCES), exact)
        rhos = {
            f"{name} rho": task.rho(lambda words: minilm.embed(candidate, tokenizer, words))
            for name, task in tasks.items()
        }
        return {**rhos, "mean cosine": mean, "least cosine": least}

    return Job(
        title=f"all-MiniLM-L6-v2, {MINILM_TOKENS} tokens per sentence",
        model=model,
        inputs={batch: minilm.random_batch(batch, MINILM_TOKENS) for batch in BATCHES},
        scores=scores,
        never_slower=False,
    )


JOBS: Mapping[str, Callable[[], Job]] = {"digits": digits_job, "minilm": minilm_job}

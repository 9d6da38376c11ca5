"""Fine-tunes a pruned encoder: it learns to return what the dense one does, without labels."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """``steps`` of AdamW on ``batch`` texts each; the rate rises for a tenth of them and falls to
    zero by a cosine.
    """

    steps: int
    batch: int = 32
    rate: float = 1e-3


def fragments(texts: Sequence[str], batch: int, seed: int = 0) -> Iterator[list[str]]:
    """Yield batches of texts for ever; of every third only a few words, as in lists of words."""
    rng = random.Random(seed)
    while True:
        chosen = rng.sample(texts, batch)
        for at in range(0, batch, 3):
            words = chosen[at].split()
            length = rng.randint(1, 4)
            start = rng.randrange(max(1, len(words) - length + 1))
            chosen[at] = " ".join(words[start : start + length])
        yield chosen


def distil(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterator[Batch],
    recipe: Recipe,
    after_step: Callable[[], object] = lambda: None,
) -> list[float]:
    """Train ``student``, in place, to follow ``teacher``; return the loss of each step.

    Both return embeddings ``[B, d]`` of unit length and hold their blocks in ``layers``. The loss
    is 1 - cosine of the embeddings, the squared error of each block's output as a share of its
    power (FitNets, Romero et al. 2015, arXiv:1412.6550), and that of the cosines between the texts
    of a batch (Park et al. 2019, arXiv:1904.05068). Masked layers keep their
    zeros.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1
    )
    losses = []
    for _ in range(recipe.steps):
        ids, mask = next(batches)
        with torch.no_grad():
            wanted, targets = outputs(teacher, ids, mask)
        found, hidden = outputs(student, ids, mask)
        loss = (1 - F.cosine_similarity(found, wanted)).mean()
        loss = loss + 10 * (found @ found.T - wanted @ wanted.T).square().mean()
        kept = mask.bool()
        for own, target in zip(hidden, targets, strict=True):
            power = target[kept].square().mean()
            loss = loss + (own[kept] - target[kept]).square().mean() / power / len(hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        after_step()
        losses.append(float(loss.detach()))
    return losses


def outputs(model: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the embeddings, and what each block of ``model.layers`` returned."""
    seen: list[Tensor] = []
    blocks: nn.Module = model.layers  # type: ignore[assignment]
    handles = [
        block.register_forward_hook(lambda module, args, out: seen.append(out))
        for block in blocks.children()
    ]
    try:
        return model(ids, mask), seen
    finally:
        for handle in handles:
            handle.remove()

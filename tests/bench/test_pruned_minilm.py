"""The benches of pruned MiniLM: zeros where they belong, and fine-tuning that follows the model."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pyops
from pyops.testing.models import minilm


class Tiny(nn.Module):
    """An encoder like MiniLM, of 2 layers on 200 words, that loads in no time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(200, minilm.WIDTH)
        self.layers = nn.ModuleList(minilm.Layer() for _ in range(2))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :].bool())
        kept = mask[..., None].to(x.dtype)
        return F.normalize((x * kept).sum(1) / kept.sum(1), dim=1)


def inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 200, (4, 6), generator=torch.Generator().manual_seed(seed))
    return ids, torch.ones_like(ids)


def test_the_pruned_encoder_is_sparse_and_right(load: Any) -> None:
    bench = load("models.pruned_minilm")
    model = bench.pruned(Tiny().eval(), 0.9)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 12
    assert all(float((m.weight == 0).double().mean()) == pytest.approx(0.9, 1e-3) for m in layers)
    for precision in bench.RIVALS:
        case = bench.encoder(model, inputs(0), precision, "tiny 90%")
        with torch.inference_mode():
            case.check_ours(case.make_ours()())
        with pytest.raises(load("case").WrongResultError):
            case.check_ours(-model(*inputs(0)).detach())


def test_fine_tuning_follows_the_dense_model_and_keeps_the_zeros(load: Any) -> None:
    quality, distil = load("pruned_quality"), load("distil")
    dense = Tiny().eval()
    model = pyops.prune(dense, 0.8, include=nn.Linear)
    before = {n: p.clone() for n, p in dense.state_dict().items()}
    held_out = inputs(1000)

    def error() -> float:
        with torch.no_grad():
            return float((model.eval()(*held_out) - dense(*held_out)).square().sum())

    at_once = error()
    losses = quality.tune(model, dense, map(inputs, itertools.count()), distil.Recipe(steps=40))
    assert len(losses) == 40
    assert error() < 0.8 * at_once
    plain = pyops.prune.unmask(model)
    for layer in (m for m in plain.modules() if isinstance(m, nn.Linear)):
        assert float((layer.weight == 0).double().mean()) == pytest.approx(0.8, 1e-3)
    assert torch.equal(plain.words.weight, before["words.weight"])
    assert all(torch.equal(before[n], p) for n, p in dense.state_dict().items())


def test_fragments_are_sentences_and_words_of_them(load: Any) -> None:
    texts = [f"a{i} b{i} c{i} d{i} e{i} f{i}" for i in range(20)]
    (chosen,) = itertools.islice(load("distil").fragments(texts, 6), 1)
    assert sum(text in texts for text in chosen) == 4
    assert all(any(text in whole for whole in texts) for text in chosen)


@pytest.mark.parametrize("text", ["0", "1", "0.9,2", "x"])
def test_shares_are_between_0_and_1(text: str, load: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        load("pruned_quality").shares(text)

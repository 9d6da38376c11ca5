"""A trained convnet, pruned step by step to a tenth of its weights while it is fine-tuned."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import pyops
from pyops.prune import CubicSchedule, Pruner
from pyops.testing.models import digits_cnn, packages

EPOCHS, BATCH, RATE = 4, 50, 1e-3


@torch.inference_mode()
def accuracy(model, x, labels) -> float:
    model.eval()
    found = torch.cat([model(part).argmax(1) for part in x.split(500)])
    return float((found == labels).double().mean())


@pytest.mark.slow
def test_ninety_percent_pruned_and_99_percent_right():
    """On digits that fine-tuning does not see (whether those who trained the net did is unknown).

    One threshold for all layers: the first has 288 weights, too few to spare nine in ten.
    """
    try:
        model, (x, labels) = digits_cnn.load_model(), digits_cnn.load_digits()
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    test = torch.arange(len(x)) % 5 == 0
    train = (~test).nonzero().flatten()
    at_once = pyops.prune(model, 0.9, scope="global")
    steps = EPOCHS * len(train) // BATCH
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    schedule = CubicSchedule(0, steps * 2 // 3, every=10)
    pruner = Pruner(model, 0.9, scope="global", schedule=schedule, optimizer=optimizer)
    model.train()
    for _ in range(EPOCHS):
        for batch in train[torch.randperm(len(train))].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
            pruner.step()
            rate.step()
    assert pruner.done
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-5)
    right = {
        "at once": accuracy(at_once, x[test], labels[test]),
        "step by step": accuracy(model, x[test], labels[test]),
        "unmasked": accuracy(pyops.prune.unmask(model), x[test], labels[test]),
    }
    assert right["step by step"] >= 0.99
    assert right["unmasked"] == right["step by step"]
    assert right["at once"] < right["step by step"]

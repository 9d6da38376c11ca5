"""MiniLM with its real weights in int4 and weight-only int8: what is left of its embeddings.

The int4 weights are rounded to nearest, without data: the bounds are what that gives on this small
model, less a margin, so that a worse quantizer is noticed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pyops
from pyops.testing.compare import sqnr_db
from pyops.testing.models import minilm, packages, similarity
from pyops.testing.models.sentences import SENTENCES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained() -> minilm.MiniLM:
    """The float model; needs the packages of requirements-models.txt."""
    try:
        packages.require(minilm.WEIGHTS_PACKAGE, minilm.TOKENIZERS_PACKAGE)
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    return minilm.load_model()


# Least mean and minimum cosine of the sentences' embeddings, and SQNR of any layer's weight.
@pytest.mark.parametrize(
    ("scheme", "mean", "least", "db"),
    [
        ({"weights": "int8"}, 0.999, 0.998, 33.0),
        ({"weights": "int4", "group_size": 128}, 0.95, 0.89, 17.0),
        ({"weights": "int4", "group_size": 32}, 0.96, 0.92, 19.5),
        ({"weights": "int4", "group_size": 32, "symmetric": False}, 0.97, 0.93, 20.5),
    ],
    ids=str,
)
def test_quality(
    trained: minilm.MiniLM, scheme: dict[str, Any], mean: float, least: float, db: float
) -> None:
    model = pyops.quantize(trained, **scheme)
    tokenizer = minilm.load_tokenizer()
    with torch.inference_mode():
        exact = minilm.embed(trained, tokenizer, SENTENCES)
        found = similarity.cosines(minilm.embed(model, tokenizer, SENTENCES), exact)
    layers = {name: part for name, part in trained.named_modules() if isinstance(part, nn.Linear)}
    quality = [
        sqnr_db(model.get_submodule(name).weight, layer.weight)  # type: ignore[arg-type]
        for name, layer in layers.items()
    ]
    assert found[0] >= mean
    assert found[1] >= least
    assert min(quality) >= db

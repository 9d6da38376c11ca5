"""MiniLM with its real weights: our definition is right, and int8 keeps what it computes."""

from __future__ import annotations

import pytest
import torch

import pyops
from pyops.testing.models import minilm, packages, similarity
from pyops.testing.models.sentences import SENTENCES

# Spearman's rho of the float model, measured with torch 2.13.
WORDSIM_FP32 = 0.7289
SIMLEX_FP32 = 0.4462


def test_every_parameter_has_a_name_in_the_checkpoint() -> None:
    with torch.device("meta"):
        names = [minilm._their_name(name) for name in minilm.MiniLM().state_dict()]
    assert len(set(names)) == len(names) == 101
    assert "encoder.layer.5.intermediate.dense.bias" in names
    assert "embeddings.LayerNorm.weight" in names


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = minilm.MiniLM().eval()
    ids, mask = minilm.random_batch(2, 7)
    padded = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5))
    with torch.inference_mode():
        torch.testing.assert_close(model(*padded), model(ids, mask), rtol=0, atol=1e-5)
        assert model(ids, mask).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_sentences_are_distinct_and_of_many_lengths() -> None:
    words = [len(sentence.split()) for sentence in SENTENCES]
    assert len(set(SENTENCES)) == 64
    assert min(words) == 1
    assert max(words) > 50


@pytest.fixture(scope="module")
def trained() -> minilm.MiniLM:
    """The float model; needs the packages of requirements-models.txt."""
    try:
        packages.require(minilm.WEIGHTS_PACKAGE, minilm.TOKENIZERS_PACKAGE, similarity.DATA_PACKAGE)
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    return minilm.load_model()


@pytest.fixture(scope="module")
def quantized(trained: minilm.MiniLM) -> torch.nn.Module:
    return pyops.quantize(trained)


def rho(model: torch.nn.Module, task: similarity.WordPairs) -> float:
    """Spearman's rho of ``model`` on ``task``."""
    tokenizer = minilm.load_tokenizer()
    return task.rho(lambda words: minilm.embed(model, tokenizer, words))


@pytest.mark.slow
def test_fp32_scores(trained: minilm.MiniLM) -> None:
    assert rho(trained, similarity.wordsim353()) == pytest.approx(WORDSIM_FP32, abs=5e-4)
    assert rho(trained, similarity.simlex999()) == pytest.approx(SIMLEX_FP32, abs=5e-4)


@pytest.mark.slow
def test_every_encoder_linear_is_replaced(quantized: torch.nn.Module) -> None:
    rows = pyops.explain(quantized).rows
    assert len(rows) == 36
    assert {row.after for row in rows} == {"Int8Linear"}


@pytest.mark.slow
def test_int8_cosine(trained: minilm.MiniLM, quantized: torch.nn.Module) -> None:
    tokenizer = minilm.load_tokenizer()
    exact = minilm.embed(trained, tokenizer, SENTENCES)
    mean, least = similarity.cosines(minilm.embed(quantized, tokenizer, SENTENCES), exact)
    assert mean >= 0.993
    assert least >= 0.98


@pytest.mark.slow
def test_int8_word_similarity(quantized: torch.nn.Module) -> None:
    assert rho(quantized, similarity.wordsim353()) >= WORDSIM_FP32 - 0.01
    assert rho(quantized, similarity.simlex999()) >= SIMLEX_FP32 - 0.01

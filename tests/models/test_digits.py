"""The model that ships with the package is as good as it says, and int8 keeps it so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pyops
from pyops.testing.models import digits

ACCURACY = 0.9833  # 353 of 359
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_digits.py"


def test_shipped_file() -> None:
    assert digits.path().stat().st_size < 1_000_000
    images, labels = digits.load_held_out()
    assert images.shape == (359, 8, 8)
    assert images.dtype == torch.uint8
    assert images.max() == 16
    assert labels.shape == (359,)
    assert set(labels.tolist()) == set(range(10))


def test_shipped_accuracy() -> None:
    model = digits.load_model()
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert digits.accuracy(model, *digits.load_held_out()) == pytest.approx(ACCURACY, abs=0.003)


def test_int8_accuracy() -> None:
    images, labels = digits.load_held_out()
    model = digits.load_model()
    quantized = pyops.quantize(model)
    assert digits.accuracy(quantized, images, labels) >= ACCURACY - 0.006  # two images
    with torch.inference_mode():
        exact, rounded = model(images), quantized(images)
    noise = (rounded - exact).square().sum() / exact.square().sum()
    assert -10 * noise.log10() > 25


@pytest.fixture
def script() -> ModuleType:
    """scripts/train_digits.py as a module."""
    pytest.importorskip("sklearn", reason="scikit-learn holds the data; it is not installed")
    spec = importlib.util.spec_from_file_location("train_digits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_held_out_images_are_those_of_the_split(script: ModuleType) -> None:
    images, labels = script.read_digits()
    training, held_out = script.split(len(images))
    assert not set(training.tolist()) & set(held_out.tolist())
    assert len(training) + len(held_out) == len(images) == 1797
    shipped_images, shipped_labels = digits.load_held_out()
    assert torch.equal(images[held_out], shipped_images.float())
    assert torch.equal(labels[held_out], shipped_labels)


def test_shift_moves_whole_images(script: ModuleType) -> None:
    images = torch.zeros(100, 8, 8)
    images[:, 4, 4] = 1
    moved = script.shift(images, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sum((1, 2)), torch.ones(100))
    assert moved.sum(0)[3:6, 3:6].sum() == 100
    assert (moved.sum(0)[3:6, 3:6] > 0).all()


@pytest.mark.slow
def test_training_again_reaches_the_same_accuracy(script: ModuleType) -> None:
    images, labels = script.read_digits()
    training, held_out = script.split(len(images))
    model = script.train(images[training], labels[training], script.EPOCHS)
    accuracy = digits.accuracy(model, images[held_out], labels[held_out])
    # Other machines round differently on the way: five images either way.
    assert accuracy == pytest.approx(ACCURACY, abs=0.014)

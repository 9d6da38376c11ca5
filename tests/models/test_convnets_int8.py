"""Whole convnets in static int8: accuracy against their float versions, on other images."""

from __future__ import annotations

import pytest
import torch

import pyops
from pyops.testing.compare import sqnr_db
from pyops.testing.models import digits_cnn, images, mobilenet_v2, packages, resnet


@torch.inference_mode()
def outputs(model: torch.nn.Module, x: torch.Tensor, batch: int = 25) -> torch.Tensor:
    return torch.cat([model(part) for part in x.split(batch)])


def test_resnet18_of_small_images():
    model = resnet.random_model(18)
    x = images.synthetic(24, size=32)
    new = pyops.quantize(model, calibration=x[:16].split(8))
    report = pyops.explain(new)
    assert report.islands == ()
    assert sum(row.kernel is not None for row in report.rows) == 21
    assert sum("residual" in row.reason for row in report.rows) == 8
    assert sqnr_db(outputs(new, x[16:]), outputs(model, x[16:])) > 20


def test_digits_cnn_keeps_its_accuracy():
    try:
        model, (x, labels) = digits_cnn.load_model(), digits_cnn.load_digits()
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    new = pyops.quantize(model, calibration=x[::50].split(25))
    rest = torch.arange(len(x)) % 50 != 0
    right = [
        (outputs(m, x[rest], 500).argmax(1) == labels[rest]).double().mean() for m in (model, new)
    ]
    assert float(right[0] - right[1]) <= 0.001
    assert pyops.explain(new).islands == ()


@pytest.mark.slow
def test_mobilenet_v2_on_photos_that_it_was_not_calibrated_on():
    """18 dB, 95 % of the float model's answers, and at most one point of top-1 fewer right."""
    try:
        model, (x, labels), photos = (
            mobilenet_v2.load_model(),
            images.labelled(),
            images.photos(),
        )
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    new = pyops.quantize(model, calibration=photos.split(10))
    expected, found = outputs(model, x), outputs(new, x)
    assert pyops.explain(new).islands == ()
    assert sqnr_db(found, expected) >= 18
    assert float((found.argmax(1) == expected.argmax(1)).double().mean()) >= 0.95
    right = [float((y.argmax(1) == labels).double().mean()) for y in (expected, found)]
    assert right[0] - right[1] <= 0.01

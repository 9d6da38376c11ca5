"""Images for convnets: labelled photos, unlabelled ones to calibrate with, and made-up ones.

The labelled photos are the 20 of ImageNet that come in the package ``foolbox``; the others come in
``scikit-image`` and ``scikit-learn`` (see ``packages``). All are read as files, with Pillow.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import packages

Model = TypeVar("Model", bound=nn.Module)

SIZE, RESIZED = 224, 256
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CROPS = 10
LABELLED_PACKAGE = ("foolbox", "foolbox==3.3.4")
PHOTO_PACKAGES = (("skimage", "scikit-image==0.26.0"), ("sklearn", "scikit-learn==1.9.1"))
PILLOW_PACKAGE = ("PIL", "pillow")
# The colour photos among what the two packages hold; the rest are masks, texts and drawings.
PHOTOS = {
    "skimage": tuple(
        f"data/{name}"
        for name in (
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "retina.jpg",
            "rocket.jpg",
        )
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def read(path: Path) -> Any:
    """Return the photo as an RGB ``PIL.Image`` whose shorter side has ``RESIZED`` pixels."""
    packages.folder(*PILLOW_PACKAGE)
    pillow = importlib.import_module("PIL.Image")
    image = pillow.open(path).convert("RGB")
    scale = RESIZED / min(image.size)
    size = tuple(max(RESIZED, round(side * scale)) for side in image.size)
    return image.resize(size, pillow.Resampling.BILINEAR)


def normalised(image: Any) -> Tensor:
    """Return fp32 ``[3, H, W]`` with ImageNet's mean and deviation taken out."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def crops(pixels: Tensor) -> Iterator[Tensor]:
    """Yield the centre and the four corners of ``[3, H, W]``, ``SIZE`` wide, each also mirrored."""
    down, right = (side - SIZE for side in pixels.shape[1:])
    middle = (round(down / 2), round(right / 2))
    for top, left in (middle, (0, 0), (0, right), (down, 0), (down, right)):
        crop = pixels[:, top : top + SIZE, left : left + SIZE]
        yield crop
        yield crop.flip(2)


def labelled(every_crop: bool = True) -> tuple[Tensor, Tensor]:
    """Return crops ``[200, 3, 224, 224]``, channels_last, and labels ``[200]``; or 20 centres.

    Raises:
        MissingPackageError: the package with the photos, or Pillow, is not installed.
    """
    folder = packages.folder(*LABELLED_PACKAGE) / "data"
    files = sorted(folder.glob("imagenet_*.jpg"))
    count = CROPS if every_crop else 1
    found = [crop for file in files for crop in list(crops(normalised(read(file))))[:count]]
    labels = [int(file.stem.rpartition("_")[2]) for file in files for _ in range(count)]
    return stacked(found), torch.tensor(labels)


def photos() -> Tensor:
    """Return crops of unlabelled photos, channels_last ``[110, 3, 224, 224]``, to calibrate with.

    Raises:
        MissingPackageError: a package with photos, or Pillow, is not installed.
    """
    packages.require(*PHOTO_PACKAGES, PILLOW_PACKAGE)
    files = [
        packages.file(module, requirement, name)
        for module, requirement in PHOTO_PACKAGES
        for name in PHOTOS[module]
    ]
    return stacked([crop for file in files for crop in crops(normalised(read(file)))])


def stacked(found: list[Tensor]) -> Tensor:
    """Return one channels_last batch."""
    return torch.stack(found).contiguous(memory_format=torch.channels_last)


def for_images(model: Model) -> Model:
    """Return ``model`` itself, in eval mode and with the weights of convolutions channels_last."""
    # torch's own types do not know this argument of a module.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def synthetic(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Return noise with the spectrum of photos, channels_last ``[count, 3, size, size]``.

    Noise of every scale from one blob to one pixel, each of the same power; mean 0, deviation 1.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, size, size)
    side = 2
    while side <= size:
        noise = torch.randn(count, 3, side, side, generator=generator)
        total += F.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
        side *= 2
    spread = total.std(dim=(1, 2, 3), keepdim=True)
    centred = (total - total.mean(dim=(1, 2, 3), keepdim=True)) / spread
    return centred.contiguous(memory_format=torch.channels_last)

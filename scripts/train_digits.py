"""Train the digits model that ships with the package, once and deterministically.

    python scripts/train_digits.py [--out pyops/data/digits.safetensors] [--epochs 20]

Needs scikit-learn for the data. Every fifth of the 1797 images, 359 in all, is held out. The set
is ordered by writer, so writers are in both parts, as in a random split. The weights after the
last epoch are the ones that ship. The same machine and number of threads give the same file;
elsewhere the weights differ by rounding and the accuracy by an image or two.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from pyops.testing.models import digits

HELD_OUT_EVERY = 5
EPOCHS = 20
BATCH = 64
PEAK_RATE = 1e-3
SEED = 0


def read_digits() -> tuple[Tensor, Tensor]:
    """Return all images, float ``[1797, 8, 8]`` with pixels 0..16, and labels ``[1797]``."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32), torch.tensor(data.target)


def split(count: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the training images and of the held-out ones."""
    index = torch.arange(count)
    held_out = index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return index[~held_out], index[held_out]


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by -1, 0 or 1 pixel in both directions, filling with background."""
    padded = F.pad(images, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(images), 1), generator=generator)
    rows = rows + torch.arange(8)
    columns = columns + torch.arange(8)
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(images: Tensor, labels: Tensor, epochs: int) -> digits.DigitsTransformer:
    """Return a model trained on ``images [n, 8, 8]`` by AdamW with one warm-up and cosine cycle."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = digits.DigitsTransformer()
    torch.nn.init.normal_(model.positions, std=0.5, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    steps_per_epoch = math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=epochs * steps_per_epoch, pct_start=0.2
    )
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            logits = model(shift(images[rows], generator))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        print(f"epoch {epoch + 1:2d}/{epochs}  loss {total / len(images):.4f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=digits.path())
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    images, labels = read_digits()
    training, held_out = split(len(images))
    model = train(images[training], labels[training], arguments.epochs)
    save_file(digits.pack(model, images[held_out], labels[held_out]), arguments.out)
    shipped = digits.load_model(arguments.out)
    accuracy = digits.accuracy(shipped, *digits.load_held_out(arguments.out))
    print(
        f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, "
        f"held-out accuracy {accuracy:.2%} of {len(held_out)} images"
    )


if __name__ == "__main__":
    main()

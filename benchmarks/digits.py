"""Trains the demo's network on scikit-learn's handwritten digits and leaves what a user would upload.

``python benchmarks/digits.py FOLDER`` writes model.pt2, calibration.npz and evaluation.npz into FOLDER. The data are
real: 1797 scans of 8x8 pixels (Alpaydin & Kaynak, UCI 1998); 40 % of them are held out for the evaluation and never
seen in training or calibration.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
HELD_OUT = 0.4
EPOCHS = 12
BATCH = 64
CALIBRATION_SAMPLES = 256


def network() -> nn.Sequential:
    """A CNN of 1.2 million parameters for images of shape (batch, 1, 8, 8)."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 64),
        *block(64, 128),
        nn.MaxPool2d(2),
        *block(128, 256),
        *block(256, 256),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Trains in place, with images shifted by up to one pixel so that a thousand of them suffice."""
    steps = EPOCHS * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH):
            down, right = (int(shift) for shift in torch.randint(-1, 2, (2,)))
            batch = torch.roll(images[index], (down, right), (2, 3))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[index], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main(folder: Path) -> None:
    """Trains and writes the three files."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    digits = load_digits()
    pixels = (digits.images / 16).astype(np.float32)[:, None]
    kept, held, kept_labels, held_labels = train_test_split(
        pixels, digits.target.astype(np.int64), test_size=HELD_OUT, random_state=SEED, stratify=digits.target
    )
    model = network()
    train(model, torch.from_numpy(kept), torch.from_numpy(kept_labels))
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (torch.from_numpy(kept[:2]),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    np.savez(folder / "calibration.npz", input=kept[:CALIBRATION_SAMPLES])
    np.savez(folder / "evaluation.npz", input=held, label=held_labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

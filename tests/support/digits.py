"""A small network trained on scikit-learn's handwritten digits: real images, a held-out test split."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.support.pt2_files import save


class DigitsNet(nn.Module):
    """Three convolutions and a linear layer for 8x8 images of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc = nn.Linear(256, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(image)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.relu(self.conv3(x)).flatten(1))


@dataclass(frozen=True)
class Digits:
    """The exported model and its data.

    Attributes:
        calibration / evaluation: npz files with columns image and label.
        images / labels: of the evaluation split.
        accuracy: of the float model there.
    """

    model: bytes
    calibration: bytes
    evaluation: bytes
    images: np.ndarray
    labels: np.ndarray
    accuracy: float


def npz(**columns: np.ndarray) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


def train_digits(folder: Path, epochs: int = 8) -> Digits:
    """Trains for a few seconds; 40 % of the images are held out."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    cut = int(0.6 * len(images))
    train, test = order[:cut], order[cut:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads only get in each other's way on so small a network
    network = _train(images[train], labels[train], epochs)
    torch.set_num_threads(threads)
    with torch.no_grad():
        predicted = network(torch.from_numpy(images[test])).argmax(1).numpy()
    path = save(network, (torch.from_numpy(images[:2]),), folder / "digits.pt2")
    return Digits(
        model=path.read_bytes(),
        calibration=npz(image=images[train][:256], label=labels[train][:256]),
        evaluation=npz(image=images[test], label=labels[test]),
        images=images[test],
        labels=labels[test],
        accuracy=float((predicted == labels[test]).mean()),
    )


def _train(images: np.ndarray, labels: np.ndarray, epochs: int) -> DigitsNet:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = DigitsNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    return network.eval()

"""The networks of the benchmark, as ONNX files with their data, made once under the cache folder."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.support import glyphs, resnet
from benchmarks.support.resnet import ResNet18

EPOCHS, IMAGES, BATCH = 3, 12_000, 64
CALIBRATION, HELD_OUT = 256, 4_000


@dataclass(frozen=True)
class Subject:
    """A float ONNX file and the arrays that go with it.

    Attributes:
        calibration / evaluation: ``.npz`` files with ``input``, the latter with ``label`` where there are labels.
    """

    name: str
    onnx: Path
    calibration: Path
    evaluation: Path


def random_resnet(cache: Path) -> Subject:
    """ResNet-18 at 224x224 with random weights and settled batch norms: for size and speed only."""
    folder = cache / "resnet18-224-random"
    subject = Subject("resnet18-224", folder / "float.onnx", folder / "calibration.npz", folder / "evaluation.npz")
    if not subject.onnx.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = ResNet18(1000, small=False).train()
        with torch.no_grad():
            for _ in range(4):
                model(torch.randn(8, 3, 224, 224))
        random = np.random.default_rng(0)
        np.savez(subject.calibration, input=random.standard_normal((64, 3, 224, 224)).astype(np.float32))
        np.savez(subject.evaluation, input=random.standard_normal((64, 3, 224, 224)).astype(np.float32))
        export(model.eval(), 224, subject.onnx)
    return subject


def trained_resnet(cache: Path) -> Subject:
    """ResNet-18 with a 3x3 stem, trained on glyphs; the weights are kept by the digest of what made them."""
    recipe = Path(glyphs.__file__).read_bytes() + Path(resnet.__file__).read_bytes()
    recipe += f"{EPOCHS} {IMAGES} {BATCH} AdamW {[path.name for path in glyphs.fonts()]}".encode()
    folder = cache / f"resnet18-glyphs-{hashlib.sha256(recipe).hexdigest()[:16]}"
    subject = Subject("resnet18-glyphs", folder / "float.onnx", folder / "calibration.npz", folder / "evaluation.npz")
    if not subject.onnx.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = glyphs.render(HELD_OUT, seed=999_983)
        np.savez(subject.evaluation, input=images, label=labels)
        np.savez(subject.calibration, input=glyphs.render(CALIBRATION, seed=77_003)[0])
        export(_train(folder), glyphs.SIZE, subject.onnx)
    return subject


def _train(folder: Path) -> nn.Module:
    """One-cycle AdamW in bfloat16; continues after the last finished epoch."""
    torch.manual_seed(0)
    model = ResNet18(len(glyphs.CLASSES), small=True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = -(-IMAGES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, EPOCHS * steps)
    state, first = folder / "training.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, EPOCHS):
        started = time.monotonic()
        images, labels = map(torch.from_numpy, glyphs.render(IMAGES, seed=epoch))
        model.train()
        total = 0.0
        for batch in torch.randperm(IMAGES).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images[batch].to(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(logits.float(), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss) * len(batch)
        print(
            f"  epoch {epoch + 1}/{EPOCHS}: loss {total / IMAGES:.3f}, {time.monotonic() - started:.0f} s", flush=True
        )
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**saved, "epoch": epoch + 1}, state)
    return model.eval()


def export(model: nn.Module, size: int, path: Path) -> None:
    """The float ONNX file that every contestant starts from."""
    example = (torch.zeros(2, 3, size, size),)
    program = torch.onnx.export(
        model.to(memory_format=torch.contiguous_format),
        example,
        dynamo=True,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    program.save(str(path), external_data=False)

"""The networks of the benchmark with their data, made once under the cache folder."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from benchmarks.support import glyphs, language, mobilenet, narrow, resnet, text, transformer, vgg

IMAGES, BATCH = 12_000, 64
CALIBRATION, HELD_OUT = 256, 4_000
#: Of the language model: pieces of text to calibrate on, and held out.
SEQUENCES, HELD_OUT_SEQUENCES = 128, 256
CLASSES = len(glyphs.CLASSES)
#: The file of weights and optimizer after the last finished epoch.
STATE = "training.pt"


@dataclass(frozen=True)
class Subject:
    """A float network in both formats and the arrays that go with it.

    Attributes:
        onnx / pt2: the same weights.
        calibration / evaluation / training: ``.npz`` files with ``input``, the latter two with ``label`` where there
            are labels; no training data, no labels.
    """

    name: str
    folder: Path
    calibration: Path
    evaluation: Path
    training: Path | None

    @property
    def onnx(self) -> Path:
        return self.folder / "float.onnx"

    @property
    def pt2(self) -> Path:
        return self.folder / "float.pt2"


@dataclass(frozen=True)
class Training:
    """How a network is made: its file, what it is, how long it learns and at which peak rate."""

    source: ModuleType
    make: Callable[[], nn.Module]
    epochs: int
    rate: float


TRAINED = {
    "resnet18": Training(resnet, lambda: resnet.ResNet18(CLASSES, small=True), epochs=3, rate=2e-3),
    "mobilenet": Training(mobilenet, lambda: mobilenet.MobileNet(CLASSES), epochs=8, rate=6e-3),
    "vgg16": Training(vgg, lambda: vgg.Vgg16(CLASSES), epochs=4, rate=2e-3),
    "resnet18-quarter": Training(narrow, lambda: narrow.NarrowResNet18(CLASSES), epochs=8, rate=4e-3),
    "transformer": Training(transformer, lambda: transformer.Transformer(CLASSES), epochs=8, rate=1e-3),
}
#: Those that are quantized side by side with other tools.
QUANTIZED = ("resnet18", "mobilenet", "transformer")
RANDOM = "resnet18-224"
LANGUAGE = "language"
NAMES = (*TRAINED, RANDOM, LANGUAGE)


def subject(name: str, cache: Path, threads: int) -> Subject:
    """The network of this name, made where it is not there yet."""
    torch.set_num_threads(threads)
    if name == LANGUAGE:
        return _language(cache)
    return _random(cache) if name == RANDOM else _trained(name, cache)


def _language(cache: Path) -> Subject:
    """The language model on pieces of text, ``label``: the token after each; its perplexity is what counts."""
    recipe = f"{text.digest()} {SEQUENCES} {HELD_OUT_SEQUENCES}".encode()
    folder = cache / "networks" / f"{LANGUAGE}-{_digest(_code(text, language) + recipe)}"
    made = Subject(LANGUAGE, folder, folder / "calibration.npz", folder / "evaluation.npz", None)
    if not made.onnx.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sequences, held_out = text.tokens()
        np.savez(made.calibration, input=sequences[:: len(sequences) // SEQUENCES][:SEQUENCES, :-1])
        some = held_out[:: len(held_out) // HELD_OUT_SEQUENCES][:HELD_OUT_SEQUENCES]
        np.savez(made.evaluation, input=some[:, :-1], label=some[:, 1:])
        device = "cuda" if torch.cuda.is_available() else "cpu"
        print(f"training {LANGUAGE} on {device} ...", flush=True)
        model = language.train(sequences, language.Progress(folder / STATE, device))
        _export(model, torch.zeros(2, language.LENGTH, dtype=torch.long), made)
    return made


def _random(cache: Path) -> Subject:
    """ResNet-18 at 224x224 with random weights and settled batch norms: for size and speed only."""
    folder = cache / "networks" / RANDOM
    made = Subject(RANDOM, folder, folder / "calibration.npz", folder / "evaluation.npz", None)
    if not made.onnx.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = resnet.ResNet18(1000, small=False).train()
        with torch.no_grad():
            for _ in range(4):
                model(torch.randn(8, 3, 224, 224))
        random = np.random.default_rng(0)
        for file in (made.calibration, made.evaluation):
            np.savez(file, input=random.standard_normal((64, 3, 224, 224)).astype(np.float32))
        _export(model.eval(), torch.zeros(2, 3, 224, 224), made)
    return made


def _trained(name: str, cache: Path) -> Subject:
    """A network trained on glyphs; it is kept by the digest of what made it."""
    training = TRAINED[name]
    recipe = f"{training.epochs} {training.rate} {IMAGES} {BATCH} AdamW".encode()
    digest = _digest(_files(glyphs, training.source) + recipe)
    data = _data(cache)
    files = [data / f"{role}.npz" for role in ("calibration", "evaluation", "training")]
    made = Subject(name, cache / "networks" / f"{name}-{digest}", *files)
    if not made.onnx.exists():
        made.folder.mkdir(parents=True, exist_ok=True)
        print(f"training {name} ...", flush=True)
        _export(_train(training, made.folder), torch.zeros(2, 3, glyphs.SIZE, glyphs.SIZE), made)
    return made


def _data(cache: Path) -> Path:
    """The folder of the glyphs that all trained networks share; training data are the first epoch's."""
    folder = cache / "data" / _digest(_files(glyphs) + f"{IMAGES} {HELD_OUT} {CALIBRATION}".encode())
    stamp = folder / ".ready"
    if not stamp.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for role, count, seed in (("evaluation", HELD_OUT, 999_983), ("training", IMAGES, 0)):
            images, labels = glyphs.render(count, seed)
            np.savez(folder / f"{role}.npz", input=images, label=labels)
        np.savez(folder / "calibration.npz", input=glyphs.render(CALIBRATION, 77_003)[0])
        stamp.touch()
    return folder


def memory_data(cache: Path, counts: tuple[int, ...]) -> dict[int, str]:
    """Number of calibration samples -> the ``.npy`` file that holds them, to be mapped into memory."""
    folder = _data(cache)
    files = {count: folder / f"calibration-{count}.npy" for count in counts}
    if not all(path.exists() for path in files.values()):
        images = glyphs.render(max(counts), 77_003)[0]
        for count, path in files.items():
            np.save(path, images[:count])
    return {count: str(path) for count, path in files.items()}


def _files(*modules: ModuleType) -> bytes:
    return _code(*modules) + str([path.name for path in glyphs.fonts()]).encode()


def _code(*modules: ModuleType) -> bytes:
    return b"".join(Path(str(module.__file__)).read_bytes() for module in modules)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _train(training: Training, folder: Path) -> nn.Module:
    """One-cycle AdamW in float32, on new glyphs in each epoch; continues after the last finished epoch."""
    torch.manual_seed(0)
    model = training.make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = -(-IMAGES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, training.epochs * steps)
    state, first = folder / STATE, 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, training.epochs):
        started = time.monotonic()
        torch.manual_seed(epoch)
        loss = _epoch(model, optimizer, schedule, epoch)
        seconds = time.monotonic() - started
        print(f"  epoch {epoch + 1}/{training.epochs}: loss {loss:.3f}, {seconds:.0f} s", flush=True)
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**saved, "epoch": epoch + 1}, state)
    return model.eval()


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
) -> float:
    """One pass; its mean loss."""
    images, labels = map(torch.from_numpy, glyphs.render(IMAGES, seed))
    model.train()
    total = 0.0
    for batch in torch.randperm(IMAGES).split(BATCH):
        logits = model(images[batch].to(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss) * len(batch)
    return total / IMAGES


def _export(model: nn.Module, inputs: torch.Tensor, made: Subject) -> None:
    """Write both files; the ONNX file, whose presence says that all is there, last."""
    model = model.to(memory_format=torch.contiguous_format)
    example = (inputs,)
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, example, dynamic_shapes=dynamic), made.pt2)
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    part = made.onnx.with_suffix(".part")
    program.save(str(part), external_data=False)
    part.rename(made.onnx)

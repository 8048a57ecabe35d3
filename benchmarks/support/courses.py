"""What is compressed how, as data: the trials of each stage of ``benchmarks/compression.py``."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.support.networks import LANGUAGE

TITLES = {
    "A": "channels: ResNet-18 at a quarter of the multiply-accumulates",
    "B": "channels: VGG-16 at a quarter and a tenth of the parameters",
    "C": "single weights: 2:4 and 80 %",
    "D": "single weights of a language model: 50 %",
    "E": "distillation against labels alone",
    "F": "low rank: a third of the parameters",
    "G": "search against uniform widths, at a quarter of the multiply-accumulates",
    "H": "prune, distil, quantize aware",
}
#: Of a training, at most; each on 12 000 images.
EPOCHS = 5
RATE = 2e-3


@dataclass(frozen=True)
class Trial:
    """A recipe on a network, or a peer whose network goes through the same training.

    Attributes:
        labels: whether the training samples have labels.
        training: whether there are training samples.
        peer: what `torch_pruning_peer` is told; its network is then the student of the recipe's ``distill``. Of the
            language model: what `sparse_peer` is told, and there is no recipe.
        against: label of the trial that it is compared with.
    """

    stage: str
    label: str
    network: str
    steps: tuple[dict[str, Any], ...]
    labels: bool = True
    training: bool = True
    peer: dict[str, Any] = field(default_factory=dict)
    against: str = ""

    @property
    def name(self) -> str:
        """Of its folder."""
        words = f"{self.stage}-{self.network}-{self.label}"
        return "".join(char if char.isalnum() else "-" for char in words)


def _distill(epochs: int = EPOCHS, **more: Any) -> dict[str, Any]:
    return {"method": "distill", "epochs": epochs, "learning_rate": RATE, **more}


def _finetune(epochs: int = EPOCHS, rate: float = RATE) -> dict[str, Any]:
    return {"method": "finetune", "epochs": epochs, "learning_rate": rate}


def _channels(network: str) -> Iterable[Trial]:
    """Stage A."""
    quarter = {"method": "prune.channels", "max_macs_ratio": 0.25}
    student = {"student": {"model_id": "peer"}}
    yield Trial("A", "magnitude, distilled", network, (quarter, _distill()))
    for kind, everywhere in (("uniform", False), ("global", True)):
        yield Trial(
            "A",
            f"torch-pruning, {kind}, distilled",
            network,
            (_distill(**student),),
            peer={"global": everywhere, "macs_ratio": 0.25},
            against="magnitude, distilled",
        )
    for ratio in (0.75, 0.5, 0.125):  # what they take, without what training makes of them
        step = {**quarter, "max_macs_ratio": ratio}
        yield Trial("A", f"magnitude, {ratio} of the arithmetic, untrained", network, (step,), training=False)


def _vgg() -> Iterable[Trial]:
    """Stage B: the width goes into the parameters squared."""
    four, ten = {"method": "prune.channels", "ratio": 0.5}, {"method": "prune.channels", "ratio": 0.69}
    yield Trial("B", "4x, soft labels alone", "vgg16", (four, _distill()), labels=False)
    yield Trial("B", "10x, soft labels and labels", "vgg16", (ten, _distill()))


def _weights(network: str) -> Iterable[Trial]:
    """Stage C."""
    gradual = {
        "method": "prune.weights",
        "sparsity": 0.8,
        "schedule": "gradual",
        "epochs": 3,
        "learning_rate": RATE / 2,
    }
    yield Trial("C", "2:4, fine-tuned", network, ({"method": "prune.weights", "pattern": "2:4"}, _finetune(2)))
    yield Trial("C", "80 % at once, fine-tuned", network, ({"method": "prune.weights", "sparsity": 0.8}, _finetune(3)))
    yield Trial("C", "80 %, gradually", network, (gradual,))


def _language() -> Iterable[Trial]:
    """Stage D: no training."""
    for criterion in ("magnitude", "wanda", "sparsegpt"):
        for pattern in ("unstructured", "2:4"):
            step = {"method": "prune.weights", "criterion": criterion, "pattern": pattern, "scope": "layer"}
            worse = {"wanda": "magnitude", "sparsegpt": "magnitude"}.get(criterion)
            against = f"{worse}, {pattern}" if worse else ""
            yield Trial("D", f"{criterion}, {pattern}", LANGUAGE, (step,), training=False, against=against)
    yield Trial("D", "modelopt sparsegpt, 2:4", LANGUAGE, (), peer={"tool": "modelopt"}, against="sparsegpt, 2:4")


def _distillation(network: str, width: float) -> Iterable[Trial]:
    """Stage E: the same student, the same epochs."""
    student = {"student": {"width": width}}
    alone = f"labels alone, width {width:g}"
    features = {"losses": {"features": {"weight": 1}}}
    yield Trial("E", alone, network, (_distill(**student, losses={"soft_labels": None}),))
    for label, more in (("soft labels and labels", {}), ("soft labels, features, labels", features)):
        yield Trial("E", f"{label}, width {width:g}", network, (_distill(**student, **more),), against=alone)


def _low_rank(network: str) -> Iterable[Trial]:
    """Stage F: factors in a row move the product by more than each of them moves, so the rate is lower."""
    svd = {"method": "factorize.svd", "energy": 0.955, "round_to": 4}
    # The first two stages have 6 % of the parameters, and lose most where they are factorized too.
    late = {"include": ["layers.2.*", "layers.3.*"]}
    tucker = {"method": "factorize.tucker", "rank_ratio": 0.265, "layers": late}
    yield Trial("F", "Tucker, fine-tuned", network, (tucker, _finetune(2, RATE / 4)))
    yield Trial("F", "SVD, fine-tuned", "transformer", (svd, _finetune(2, RATE / 8)))


def _search(network: str) -> Iterable[Trial]:
    """Stage G: all are trained in the same way afterwards.

    On the narrow network: the others are so much wider than their task that uniform widths lose next to nothing.
    """
    uniform = {"method": "prune.channels", "max_macs_ratio": 0.25, "scope": "layer", "round_to": 4}
    yield Trial("G", "uniform widths", network, (uniform, _distill()))
    search = {"method": "search.architecture", "limit_ratio": 0.25, "trials": 256, "epochs": EPOCHS, "round_to": 4}
    for strategy in ("evolutionary", "reinforcement", "differentiable"):
        yield Trial("G", strategy, network, ({**search, "strategy": strategy}, _distill()), against="uniform widths")


def _pipeline(network: str) -> Iterable[Trial]:
    """Stage H."""
    quantized = {"method": "quantize.aware_training", "epochs": 2, "learning_rate": 2e-4}
    steps = ({"method": "prune.channels", "max_macs_ratio": 0.17}, _distill(), quantized)
    yield Trial("H", "prune, distil, quantize aware", network, steps)


def trials(network: str = "resnet18", epochs: int = EPOCHS) -> list[Trial]:
    """Every trial; with another `network` than ResNet-18, such as a narrower one, those that are on ResNet-18 alone.

    Args:
        epochs: of a training, at most.
    """
    every = [
        *_channels(network),
        *_vgg(),
        *_weights(network),
        *_language(),
        *(_distillation("transformer", 0.25) if network == "resnet18" else _distillation(network, 0.5)),
        *_low_rank(network),
        *_search("resnet18-quarter"),
        *_pipeline(network),
    ]
    chosen = [trial for trial in every if network in ("resnet18", trial.network)]
    return [replace(trial, steps=tuple(_shortened(step, epochs) for step in trial.steps)) for trial in chosen]


def _shortened(step: dict[str, Any], epochs: int) -> dict[str, Any]:
    return {**step, "epochs": min(step["epochs"], epochs)} if "epochs" in step else step

"""What each step of a recipe cost and brought: ``metrics.before`` and the figures in ``metrics.steps``.

Taken in PyTorch between the steps, where there is no exported file yet: the network as it is, or, once it is
quantized, in fake quantization. The files themselves are measured at the end (`compare`).
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from worker.engine.data.samples import Array, Samples, chosen
from worker.engine.measure.accuracy import METRICS
from worker.engine.measure.fidelity import fidelity
from worker.engine.measure.macs import count_macs
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized
from worker.engine.quantized.form import stored_in
from worker.engine.quantized.observe import batches
from worker.engine.state import Compressed

#: Samples that a state is tried on: at most so many, as many as this many multiply-accumulates pay for, but some.
_MOST, _WORK, _LEAST = 1000, 200_000_000_000, 8
#: Bytes that the answers of the float network may take; fewer samples are tried where they would take more.
_ROOM: Final = 256 * 1024**2
_BATCH: Final = 32

#: ``parameters``, ``nonzero_parameters``, ``macs``, ``size_bytes``, ``quantized_layers``, ``metric``, ``fidelity_db``.
Figures = dict[str, Any]


@dataclass
class Effects:
    """Measures the states of one job, all on the same samples.

    Attributes:
        original: the network as it was read: what fidelity compares with.
        samples: held back from the steps; None: nothing is run but to count.
        task: ``classification`` or ``regression`` where the samples have labels, else None.
        target: whose quantization counts; the first of the job.
        seed: decides which samples are tried.
    """

    original: Network
    samples: Samples | None
    task: str | None
    target: str
    device: str = "cpu"
    seed: int = 0
    _counted: list[tuple[Network, Figures]] = field(default_factory=list)
    _answers: list[Array] = field(default_factory=list)
    _before: Figures | None = None

    @property
    def before(self) -> Figures:
        """The figures of the network as it was read."""
        if self._before is None:
            self._before = self._figures(Compressed(self.original))
        return self._before

    def figures(self, compressed: Compressed) -> Figures:
        """The figures of a state; its networks are on the CPU, and stay there."""
        untouched = compressed.network is self.original and not compressed.quantized
        return self.before if untouched else self._figures(compressed)

    def facts(self, network: Network) -> Figures:
        """``parameters``, ``nonzero_parameters`` and ``macs`` of one sample; counted once for each network."""
        for known, facts in self._counted:
            if known is network:
                return facts
        facts = {
            "parameters": network.parameters,
            "nonzero_parameters": sum(int(torch.count_nonzero(value)) for value in network.module.parameters()),
            "macs": sum(count_macs(network).values()),
        }
        # Of those between the original and the current one nobody asks again: they should not stay in memory.
        self._counted = [pair for pair in self._counted if pair[0] is self.original] + [(network, facts)]
        return facts

    def _figures(self, compressed: Compressed) -> Figures:
        return {
            **self.facts(compressed.network),
            "size_bytes": stored_bytes(compressed, self.target),
            "quantized_layers": len({name for form in compressed.quantized.values() for name in form.weights}),
            **self._quality(compressed),
        }

    def _quality(self, compressed: Compressed) -> Figures:
        """``metric`` and ``fidelity_db``, as far as there are samples and labels."""
        if self.samples is None:
            return {}
        if not self._answers:
            paid = _WORK // max(self.facts(self.original)["macs"], 1)
            self.samples = chosen(self.samples, min(max(paid, _LEAST), _MOST), self.seed)
            self._answers = _answers(self.original, self.samples, self.device)
            if not self._answers:  # fewer samples than a fixed batch, or outputs that are not one for each sample
                self.samples = None
                return {}
        form = compressed.quantized.get(self.target)
        if form is not None:
            answers = _answers(replace(form.network, module=fake_quantized(form)), self.samples, self.device)
        elif compressed.network is self.original:
            answers = self._answers
        else:
            answers = _answers(compressed.network, self.samples, self.device)
        if [one.shape for one in answers] != [one.shape for one in self._answers]:
            return {}  # the measurement of the files will say so
        return {**self._metric(answers), **self._fidelity(answers)}

    def _metric(self, answers: list[Array]) -> Figures:
        labels = None if self.samples is None else self.samples.labels
        if self.task is None or labels is None:
            return {}
        score = METRICS[self.task](answers[0], np.asarray(labels[: len(answers[0])]))[0]
        return {"metric": {"name": score.name, "value": score.value, "samples": len(answers[0])}}

    def _fidelity(self, answers: list[Array]) -> Figures:
        if answers is self._answers:
            return {}
        sqnr = fidelity(self._answers, answers)["sqnr_db"]
        return {} if sqnr is None else {"fidelity_db": round(sqnr, 2)}


def change(before: Figures, after: Figures) -> Figures:
    """What a step changed: ``size_ratio`` and ``macs_ratio``, after to before, and ``metric``, after minus before."""
    ratios = {
        f"{name}_ratio": round(after[figure] / before[figure], 6) if before[figure] else 1.0
        for name, figure in (("size", "size_bytes"), ("macs", "macs"))
    }
    if "metric" not in before or "metric" not in after:
        return ratios
    return {**ratios, "metric": after["metric"]["value"] - before["metric"]["value"]}


def told(row: Figures) -> str:
    """A row of ``metrics.steps`` as the job's log tells it."""
    parts = [f"{row['method']}: done in {row['seconds']:.1f} s", f"{row['change']['size_ratio']:.1%} of the size"]
    if row["change"]["macs_ratio"] != 1:
        parts.append(f"{row['change']['macs_ratio']:.1%} of the MACs")
    if "metric" in row:
        by = f" ({row['change']['metric']:+.4f})" if "metric" in row["change"] else ""
        parts.append(f"{row['metric']['name']} {row['metric']['value']:.4f}{by}")
    return ", ".join(parts) + "."


def stored_bytes(compressed: Compressed, target: str) -> int:
    """What weights take: parameters as they are, quantized ones in their bits with all that it takes to read them."""
    form = compressed.quantized.get(target)
    if form is None:
        return sum(value.numel() * value.element_size() for value in compressed.network.module.parameters())
    replaced = set()
    for key in form.weights:
        layer, name = stored_in(form.network.module, key)
        replaced.add(id(getattr(layer, name)))
    floats = [value for value in form.network.module.parameters() if id(value) not in replaced]
    bits = sum(weight.stored_bits for weight in form.weights.values())
    return sum(value.numel() * value.element_size() for value in floats) + -(-bits // 8)


@torch.no_grad()
def _answers(network: Network, samples: Samples, device: str) -> list[Array]:
    """One array (samples, ...) for each output, of as many samples as there is room for; empty where none can run.

    The network is moved to `device` and back.
    """
    together = network.batched and all(spec.batched for spec in network.outputs)
    collected: list[list[Array]] = []
    taken = 0
    try:
        for inputs in batches(network.to(device), samples, _BATCH if together else 1, device):
            results = [_per_sample(value, len(inputs[0])) for value in network.module(*inputs)]
            taken += sum(result.nbytes for result in results if result is not None)
            if any(result is None for result in results) or (collected and taken > _ROOM):
                break
            collected.append([result for result in results if result is not None])
    finally:
        network.to("cpu")
    return [np.concatenate(parts) for parts in zip(*collected, strict=True)]


def _per_sample(value: Tensor, count: int) -> Array | None:
    """A result with the samples as its first dimension; None where it has no such."""
    array: Array = (value.float() if value.is_floating_point() else value).cpu().numpy()
    if array.ndim and len(array) == count:
        return array
    return array[None] if count == 1 else None

"""What the factorization methods share: which layers, only where it makes them smaller, and the report."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from torch import nn

from app.recipes import Step
from worker.engine.errors import Unsupported
from worker.engine.factorized.replace import Replacement, Site, replaced, sites
from worker.engine.measure.macs import count_macs
from worker.engine.methods.layers import check_known, merged
from worker.engine.network import Network
from worker.engine.progress import Part
from worker.engine.quantized.placement import layer_calls
from worker.engine.state import Compressed, Context

#: Layers that a note names, at most.
_NAMED: Final = 20
_SLOWER: Final = "it would be smaller, but take more multiply-accumulates"
NOT_SMALLER: Final = "no smaller in factors at this accuracy"
#: What a method says of a layer: what stands in for it, why it stays, or None: it is not the method's business.
Verdict = Replacement | str | None
#: Called with 0..1.
Progress = Callable[[float], None]
#: Judges layers, in any order, and tells how far it is.
Judge = Callable[[Sequence[Site]], Iterable[tuple[Site, Verdict]]]


def candidates(
    compressed: Compressed,
    step: Step,
    kinds: Collection[type[nn.Module]],
    suits: Callable[[Site], bool] = lambda site: True,
) -> list[Site]:
    """The layers of these kinds that the step may touch, and that suit it.

    Raises:
        Unsupported: ``unknown_layer``; ``no_layers`` where there is none; ``invalid_order`` behind a quantization.
    """
    if compressed.quantized:
        raise Unsupported("invalid_order", f"{step.method} changes weights: it goes in front of quantize steps")
    module = compressed.network.module
    check_known(list(dict.fromkeys(str(node.target) for node, _ in layer_calls(module))), step.layers.globs)
    found = [site for site in sites(compressed.network, kinds) if step.layers.matches(site.path) and suits(site)]
    if not found:
        others = _others(compressed.network, step, [])
        raise Unsupported(
            "no_layers",
            f"the model has no layer of the kinds that {step.method} replaces, or all are left out"
            + (f"; it has {others}" if others else ""),
        )
    return found


def of_size_1(site: Site) -> bool:
    """Whether it is a matrix at each position: a linear layer, or a convolution with a kernel of one position."""
    return isinstance(site.layer, nn.Linear) or site.weight.shape[2:].numel() == 1


def each(judge: Callable[[Site, Progress], Verdict], context: Context) -> Judge:
    """Layers one by one.

    Args:
        judge: gets a layer, and what it may call with 0..1 of its own time.
    """

    def judged(found: Sequence[Site]) -> Iterator[tuple[Site, Verdict]]:
        for done, site in enumerate(found):
            part = Part(context.reporter, "compressing", 0.0, 1.0).slice(done, len(found))
            yield site, judge(site, part)
            part(1.0)

    return judged


def factorized(compressed: Compressed, step: Step, context: Context, found: Sequence[Site], judge: Judge) -> Compressed:
    """Replace the layers for which `judge` finds something smaller; the notes name those that stay, and why."""
    good: dict[str, Replacement] = {}
    left: dict[str, list[str]] = {}
    for site in found:
        if site.shared:
            left.setdefault(f"its weight is also that of {site.shared}", []).append(site.path)
    for site, verdict in judge([site for site in found if not site.shared]):
        why = _why_not(site, verdict) if isinstance(verdict, Replacement) else verdict
        if why is not None:
            left.setdefault(why, []).append(site.path)
        elif isinstance(verdict, Replacement):
            good[site.path] = verdict
    slower = _slower(compressed.network, good, context.device)
    if slower:
        left[_SLOWER] = slower
        good = {path: replacement for path, replacement in good.items() if path not in slower}
    network = replaced(compressed.network, good) if good else compressed.network
    gone = [name for name in compressed.pruned if name.rpartition(".")[0] in good]
    rows = [_row(step, site, good[site.path]) for site in found if site.path in good]
    return replace(
        compressed,
        network=network,
        layers=merged(compressed.layers, sorted(rows, key=lambda row: -float(row["relative_error"])), network),
        notes=[*compressed.notes, *_told(compressed.network, network, step, found, good, left, gone)],
        pruned=tuple(name for name in compressed.pruned if name not in gone),
    )


def _why_not(site: Site, replacement: Replacement) -> str | None:
    """Why the layer is not replaced by this after all."""
    if replacement.parameters >= site.parameters:
        return NOT_SMALLER
    dtype = site.layer.weight.dtype
    return None if replacement.fits(dtype) else f"its factors are too large for {str(dtype).removeprefix('torch.')}"  # type: ignore[arg-type]


def _told(
    before: Network,
    after: Network,
    step: Step,
    found: Sequence[Site],
    good: Mapping[str, Replacement],
    left: Mapping[str, list[str]],
    gone: list[str],
) -> list[str]:
    """The notes."""
    summary = f"{step.method} makes no layer smaller; a larger error or fewer ranks may, or another method"
    if good:
        summary = (
            f"{step.method}: {len(good)} layer{'s' * (len(good) > 1)} replaced, "
            f"parameters {before.parameters:,} -> {after.parameters:,}"
        )
    told = [summary]
    remarks: dict[str, list[str]] = {}
    for path, replacement in good.items():
        if replacement.remark:
            remarks.setdefault(replacement.remark, []).append(path)
    told += [f"{step.method}, {_listed(paths)}: {remark}" for remark, paths in remarks.items()]
    told += [f"{step.method} left {_listed(paths)} as before: {reason}" for reason, paths in left.items()]
    others = _others(before, step, [site.path for site in found])
    if others:
        told.append(f"{step.method} does not replace layers of other kinds: {others}")
    if gone:
        told.append(f"{step.method}: zeros of earlier pruning are gone in {_listed(gone)}")
    return told


def _others(network: Network, step: Step, found: Collection[str]) -> str:
    """How many layers with matrices the step's filter names, of each kind that is not among `found`."""
    calls = {str(node.target): layer for node, layer in layer_calls(network.module)}
    kinds = Counter(
        _kind(layer)
        for path, layer in calls.items()
        if path not in found and step.layers.matches(path) and any(p.dim() > 1 for p in layer.parameters())
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _kind(layer: nn.Module) -> str:
    sizes = getattr(layer, "kernel_size", None)
    return type(layer).__name__ + (f" ({'x'.join(map(str, sizes))})" if isinstance(sizes, tuple) else "")


def _slower(network: Network, good: Mapping[str, Replacement], device: str) -> list[str]:
    """Paths of the layers whose parts take more multiply-accumulates than they did, as in front of a stride."""
    if not good:
        return []
    original = network
    if device != "cpu":  # counting runs a sample on the CPU
        original = replace(network, module=copy.deepcopy(network.module)).to("cpu")
    before, after = count_macs(original), count_macs(replaced(original, good).to("cpu"))
    sums = Counter(dict.fromkeys(good, 0))
    for name, count in after.items():
        parent = name.rpartition(".")[0]
        if parent in good:
            sums[parent] += count
    return [path for path in good if sums[path] > before.get(path, 0)]


def _row(step: Step, site: Site, replacement: Replacement) -> dict[str, Any]:
    """One of ``metrics.layers``."""
    return {
        "name": site.path,
        "kind": type(site.layer).__name__,
        "method": step.method,
        "ranks": list(replacement.ranks),
        "parameters_before": site.parameters,
        "parameters_after": replacement.parameters,
        "relative_error": round(replacement.error, 6),
    }


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""What the factorization methods share: which layers, only where it makes them smaller, and the report."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from torch import nn

from app.recipes import Step
from worker.engine.errors import Unsupported
from worker.engine.factorized.replace import Replacement, Site, replaced, sites
from worker.engine.measure.macs import count_macs
from worker.engine.methods.layers import check_known
from worker.engine.network import Network
from worker.engine.quantized.placement import layer_calls
from worker.engine.state import Compressed, Context

#: Layers that a note names, at most.
_NAMED: Final = 20
_SLOWER: Final = "it would be smaller, but take more multiply-accumulates"
NOT_SMALLER: Final = "no smaller in factors at this accuracy"
#: What a method says of a layer: what stands in for it, why it stays, or None: it is not the method's business.
Verdict = Replacement | str | None


def candidates(compressed: Compressed, step: Step, kinds: Collection[type[nn.Module]]) -> list[Site]:
    """The layers of these kinds that the step may touch.

    Raises:
        Unsupported: ``unknown_layer``; ``invalid_order`` behind a quantization.
    """
    if compressed.quantized:
        raise Unsupported("invalid_order", f"{step.method} changes weights: it goes in front of quantize steps")
    module = compressed.network.module
    check_known(list(dict.fromkeys(str(node.target) for node, _ in layer_calls(module))), step.layers.globs)
    return [site for site in sites(compressed.network, kinds) if step.layers.matches(site.path)]


def factorized(
    compressed: Compressed, step: Step, context: Context, found: Collection[Site], judge: Callable[[Site], Verdict]
) -> Compressed:
    """Replace the layers for which `judge` finds something smaller.

    Raises:
        Unsupported: ``no_layers`` where it does so for none.
    """
    good: dict[str, Replacement] = {}
    left: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = []
    for done, site in enumerate(found, 1):
        verdict = f"its weight is also that of {site.shared}" if site.shared else judge(site)
        if isinstance(verdict, Replacement) and verdict.parameters >= site.parameters:
            verdict = NOT_SMALLER
        if isinstance(verdict, Replacement):
            good[site.path] = verdict
            rows.append(_row(step, site, verdict))
        elif verdict is not None:
            left.setdefault(verdict, []).append(site.path)
        context.progress(done / len(found))
    slower = _slower(compressed.network, good, context.device)
    if slower:
        left[_SLOWER] = slower
        good = {path: replacement for path, replacement in good.items() if path not in slower}
    told = [f"{step.method} left {_listed(paths)} as before: {reason}" for reason, paths in left.items()]
    if not good:
        raise Unsupported("no_layers", f"{step.method} makes no layer smaller. {_advice(told)}")
    network = replaced(compressed.network, good)
    rows = [row for row in rows if row["name"] in good]
    gone = [name for name in compressed.pruned if name.rpartition(".")[0] in good]
    if gone:
        told.append(f"{step.method}: zeros of earlier pruning are gone in {_listed(gone)}")
    summary = (
        f"{step.method}: {len(good)} layer{'s' * (len(good) > 1)} replaced, "
        f"parameters {compressed.network.parameters:,} -> {network.parameters:,}"
    )
    return replace(
        compressed,
        network=network,
        layers=[*compressed.layers, *sorted(rows, key=lambda row: -float(row["relative_error"]))],
        notes=[*compressed.notes, summary, *told],
        pruned=tuple(name for name in compressed.pruned if name not in gone),
    )


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


def _advice(told: list[str]) -> str:
    if not told:
        return "The model has no layer of the kinds that it replaces, or all are left out."
    return f"Allow a larger error or fewer ranks, or take another method. {'; '.join(told)}"

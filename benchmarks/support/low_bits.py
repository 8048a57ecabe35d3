"""The heats of few bits, as data: who is compared with whom in ``make bench-low-bits``."""

from collections.abc import Iterable
from typing import Any

from benchmarks.support.contest import Contestant, Heat
from benchmarks.support.environments import OURS
from benchmarks.support.networks import LANGUAGE, QUANTIZED
from benchmarks.support.stages import ours

TITLES = {
    "G": "weights of 4, 3 and 2 bits in groups of 128",
    "H": "codebooks, ternary and binary weights",
    "I": "bits for each layer, 4 on average",
}
GROUP = 128
#: What nobody quantizes: the table of tokens, and the layer that scores them.
_ENDS = ("model.embed_tokens", "lm_head")
_EPOCHS = 1


def _weights(label: str, bits: int, algorithm: str, rival: str = "") -> Contestant:
    step = {"bits": bits, "algorithm": algorithm, "group_size": GROUP, "layers": {"exclude": _ENDS}}
    return Contestant(
        f"Modelpress {label}", OURS, {"step": {"method": "quantize.weights", **step}}, rival=rival, limit=900
    )


def _peer(label: str, environment: str, bits: int, algorithm: str) -> Contestant:
    options: dict[str, Any] = {"bits": bits, "algorithm": algorithm, "group": GROUP}
    return Contestant(label, environment, {"peer": environment, "options": options}, limit=1800)


def _language() -> Iterable[Heat]:
    for bits in (4, 3, 2):
        peers = [_peer(f"llm-compressor {name}", "llmcompressor", bits, name) for name in ("rtn", "gptq", "awq")]
        peers += [_peer(f"modelopt {name}", "modelopt", bits, name) for name in ("rtn", "gptq", "awq")]
        peers.append(_peer("HQQ hqq", "hqq", bits, "hqq"))
        mine = [_weights(name, bits, name, rival=f"llm-compressor {name}") for name in ("rtn", "gptq", "awq")]
        mine.append(_weights("hqq", bits, "hqq", rival="HQQ hqq"))
        title = f"{LANGUAGE}: weights of {bits} bits in groups of {GROUP}"
        columns = ("quantize", "rival", "size", "sqnr", "perplexity", "worse")
        yield Heat("G", title, LANGUAGE, "onnxruntime", (*mine, *peers), columns, 1, source="pt2", part=f"{bits}")


def _codebooks() -> Heat:
    tuned = {"finetune": True, "epochs": _EPOCHS}
    contestants = (
        *(ours(f"codebook, {bits} bits", "quantize.codebook", bits=bits) for bits in (8, 4, 3, 2)),
        *(
            ours(
                f"codebook, {bits} bits, tuned",
                "quantize.codebook",
                bits=bits,
                limit=3600,
                start=f"Modelpress codebook, {bits} bits",
                **tuned,
            )
            for bits in (4, 2)
        ),
        *(ours(f"codebook, {bits} bits, pairs", "quantize.codebook", bits=bits, vector=2) for bits in (8, 4)),
        *(
            one
            for name in ("ternary", "binary")
            for one in (
                ours(name, f"quantize.{name}"),
                ours(
                    f"{name}, trained",
                    f"quantize.{name}",
                    limit=3600,
                    start=f"Modelpress {name}",
                    epochs=_EPOCHS,
                ),
            )
        ),
        Contestant("Brevitas binary, trained", "brevitas", {"options": {"epochs": _EPOCHS, "rate": 1e-3}}, limit=3600),
    )
    columns = ("seconds", "cpu", "size", "counted", "smaller", "sqnr", "drop", "recovered")
    return Heat("H", f"resnet18: {TITLES['H']}", "resnet18", "onnxruntime", contestants, columns, rounds=1)


def _mixed(network: str) -> Heat:
    contestants = (
        ours("rtn, 4 bits for all", "quantize.weights", bits=4),
        ours("gptq, 4 bits for all", "quantize.weights", bits=4, algorithm="gptq"),
        ours("mixed 8, 4, 3, 2", "quantize.mixed", choices=[8, 4, 3, 2], average_bits=4, limit=1200),
        ours("gptq, 3 bits for all", "quantize.weights", bits=3, algorithm="gptq"),
        ours("mixed 8, 4, 3, 2, average 3", "quantize.mixed", choices=[8, 4, 3, 2], average_bits=3, limit=1200),
    )
    columns = ("seconds", "cpu", "size", "smaller", "sqnr", "drop")
    return Heat("I", f"{network}: {TITLES['I']}", network, "onnxruntime", contestants, columns, rounds=1)


def heats() -> list[Heat]:
    """All heats in their order."""
    return [*_language(), _codebooks(), *(_mixed(network) for network in QUANTIZED)]

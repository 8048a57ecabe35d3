"""Who is compared with whom, as data: the heats of each stage."""

from collections.abc import Iterable
from typing import Any

from benchmarks.support.contest import Contestant, Heat
from benchmarks.support.environments import OURS
from benchmarks.support.networks import QUANTIZED, RANDOM

TITLES = {
    "A": "int8, static",
    "B": "4-bit weights, 8-bit activations",
    "C": "equalization and bias correction on a depthwise network, int8",
    "D": "quantization-aware training, 4-bit weights and activations",
    "E": "memory of calibration",
    "F": "int8, dynamic",
}
_TIMES = ("seconds", "ratio", "cpu", "cpu_ratio")
_QUALITY = ("size", "sqnr", "drop")
_SPEED = ("latency", "speedup")

#: AIMET's default is 15 000 iterations for each layer, which would take hours on two cores.
AIMET_ITERATIONS = 500
EPOCHS, RATE = 1, 2e-4
#: Samples of the calibration sets whose memory is compared.
FEW, SOME, MANY = 64, 1024, 4096


def ours(label: str, method: str = "quantize.static", limit: int = 600, start: str = "", **step: Any) -> Contestant:
    told = {"step": {"method": method, **step}}
    return Contestant(f"Modelpress {label}", OURS, told, limit=limit, start=start)


def peer(label: str, environment: str, program: str, limit: int = 600, **options: Any) -> Contestant:
    return Contestant(label, environment, {"peer": program, "options": options}, limit=limit)


def ort(label: str, **options: Any) -> Contestant:
    return peer(f"ONNX Runtime {label}", "onnxruntime", "ort-static", **options)


def aimet(label: str, limit: int = 1800, start: str = "", **options: Any) -> Contestant:
    return Contestant(f"AIMET {label}", "aimet", {"options": options}, limit=limit, start=start)


def _static(network: str) -> Iterable[Heat]:
    """Stage A: in ONNX Runtime, then in OpenVINO."""
    transformer = network == "transformer"
    smooth = (ours("smooth 0.5", smooth=0.5),) if transformer else ()
    calibrations = ("minmax", "percentile", "entropy")
    contestants = (
        ours("mse (default)"),
        *(ours(name, calibration=name) for name in calibrations),
        *smooth,
        ort("minmax", method="MinMax"),
        ort("minmax, batches of 32", method="MinMax", batch=32),
        ort("minmax, reduce_range", method="MinMax", reduce_range=True),
        ort("percentile", method="Percentile"),
        ort("entropy", method="Entropy"),
        peer("NNCF", "nncf", "nncf-onnx", transformer=transformer),
        *((peer("NNCF, activations per tensor", "nncf", "nncf-onnx", per_tensor=True),) * (network == "mobilenet")),
    )
    columns = (*_TIMES, *_QUALITY, *_SPEED)
    yield Heat("A", f"{network}: {TITLES['A']}, in ONNX Runtime", network, "onnxruntime", contestants, columns)
    contestants = (
        ours("mse (default)"),
        *smooth,
        peer("NNCF", "nncf", "nncf-openvino", transformer=transformer),
    )
    yield Heat("A", f"{network}: {TITLES['A']}, in OpenVINO", network, "openvino", contestants, columns)


def _four_bits() -> Heat:
    contestants = (
        ours("nearest", weight_bits=4),
        ours("adaptive", weight_bits=4, rounding="adaptive", limit=1800, start="Modelpress nearest"),
        aimet("nearest", weight_bits=4),
        aimet(
            f"AdaRound, {AIMET_ITERATIONS} iterations",
            weight_bits=4,
            adaround=AIMET_ITERATIONS,
            start="AIMET nearest",
            limit=3600,
        ),
    )
    columns = ("seconds", "cpu", *_QUALITY, "recovered", *_SPEED)
    return Heat("B", f"resnet18: {TITLES['B']}", "resnet18", "onnxruntime", contestants, columns, rounds=1)


def _depthwise() -> Heat:
    mine = [
        ours(
            f"per {granularity}" + ", equalize" * equalize + ", bias_correction" * correction,
            granularity=granularity,
            equalize=equalize,
            bias_correction=correction,
        )
        for granularity in ("channel", "tensor")
        for equalize in (False, True)
        for correction in (False, True)
    ]
    peers = [
        ort("minmax per channel", method="MinMax", reduce_range=True),
        ort("minmax per tensor", method="MinMax", reduce_range=True, per_channel=False),
        # By default it takes a scale for each channel in front of depthwise convolutions, which ONNX Runtime refuses.
        peer("NNCF, fast bias correction", "nncf", "nncf-onnx", per_tensor=True),
        peer("NNCF, bias correction", "nncf", "nncf-onnx", per_tensor=True, fast_bias_correction=False),
        *(
            aimet(
                f"per {granularity}" + ", equalize" * equalize, per_channel=granularity == "channel", equalize=equalize
            )
            for granularity in ("channel", "tensor")
            for equalize in (False, True)
        ),
    ]
    columns = ("seconds", "cpu", *_QUALITY)
    title = f"mobilenet: {TITLES['C']}"
    return Heat("C", title, "mobilenet", "onnxruntime", (*mine, *peers), columns, rounds=1)


def _aware_training() -> Heat:
    bits = {"weight_bits": 4, "activation_bits": 4}
    training = {**bits, "epochs": EPOCHS, "learning_rate": RATE}
    contestants = (
        ours("static", **bits),
        ours(f"trained, {EPOCHS} epochs", "quantize.aware_training", limit=3600, start="Modelpress static", **training),
        aimet("static", **bits),
        aimet(f"trained, {EPOCHS} epochs", limit=3600, start="AIMET static", **training),
    )
    columns = ("seconds", "cpu", *_QUALITY, "recovered")
    return Heat("D", f"resnet18: {TITLES['D']}", "resnet18", "torch", contestants, columns, rounds=1)


def _memory(files: dict[int, str]) -> Heat:
    """`files`: number of samples -> its ``.npy``."""
    streaming = (
        ours("mse (default)", samples=MANY),
        ours("entropy", calibration="entropy", samples=MANY),
        ort("minmax, batches of 32", method="MinMax", batch=32),
        peer("NNCF", "nncf", "nncf-onnx"),
    )
    # These keep every output of every sample, some 2.6 MB for each: `MANY` would take 11 GB.
    keeping = (ort("percentile", method="Percentile"), ort("entropy", method="Entropy"))
    contestants = [
        Contestant(f"{one.label}, {count} samples", one.environment, one.job, calibration=files[count], limit=1200)
        for group, counts in ((streaming, (FEW, MANY)), (keeping, (FEW, SOME)))
        for count in counts
        for one in group
    ]
    title = f"resnet18: {TITLES['E']}"
    columns = ("memory", "seconds", "cpu")
    return Heat("E", title, "resnet18", "onnxruntime", tuple(contestants), columns, rounds=1, judged=False)


def _dynamic() -> Heat:
    contestants = (
        ours("dynamic", "quantize.dynamic"),
        peer("ONNX Runtime dynamic", "onnxruntime", "ort-dynamic"),
        peer("ONNX Runtime dynamic, MatMul only", "onnxruntime", "ort-dynamic", operators=["MatMul", "Gemm"]),
        peer(
            "ONNX Runtime dynamic, MatMul only, reduce_range",
            "onnxruntime",
            "ort-dynamic",
            operators=["MatMul", "Gemm"],
            reduce_range=True,
        ),
    )
    title = f"transformer: {TITLES['F']}"
    return Heat("F", title, "transformer", "onnxruntime", contestants, (*_TIMES, *_QUALITY, *_SPEED))


def heats(memory: dict[int, str]) -> list[Heat]:
    """All heats in their order; `memory`: number of samples -> ``.npy`` file of stage E."""
    static = [heat for network in (*QUANTIZED, RANDOM) for heat in _static(network)]
    return [*static, _four_bits(), _depthwise(), _aware_training(), _memory(memory), _dynamic()]

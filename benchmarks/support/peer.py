"""One quantization by a peer, in the peers' environment: ``peer.py METHOD IN.onnx CALIBRATION.npz OUT.onnx``.

Prints the seconds from reading the float file to the written quantized file; imports are not counted. Settings are
those that each peer's documentation recommends for CNNs on x86 CPUs: per-channel int8 weights, uint8 activations.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Reader:
    """Batches of calibration images, as ONNX Runtime asks for them."""

    def __init__(self, images: Any, batch: int) -> None:
        self._batches = iter([images[start : start + batch] for start in range(0, len(images), batch)])

    def get_next(self) -> dict[str, Any] | None:
        images = next(self._batches, None)
        return None if images is None else {"input": images}


def onnxruntime(method: str, batch: int) -> Callable[[Path, Any, Path], None]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    def run(source: Path, images: Any, result: Path) -> None:
        quantize_static(
            str(source),
            str(result),
            Reader(images, batch),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )

    return run


def nncf() -> Callable[[Path, Any, Path], None]:
    import nncf as library  # noqa: PLC0415 (each peer alone)
    import onnx  # noqa: PLC0415

    def run(source: Path, images: Any, result: Path) -> None:
        data = library.Dataset([{"input": images[index : index + 1]} for index in range(len(images))])
        onnx.save(library.quantize(onnx.load(str(source)), data, subset_size=len(images)), str(result))

    return run


PEERS: dict[str, Callable[[], Callable[[Path, Any, Path], None]]] = {
    "ort-minmax": lambda: onnxruntime("MinMax", 1),
    "ort-minmax-batched": lambda: onnxruntime("MinMax", 32),
    "ort-percentile": lambda: onnxruntime("Percentile", 1),
    "ort-entropy": lambda: onnxruntime("Entropy", 1),
    "nncf": nncf,
}


def main() -> None:
    name, source, calibration, result = sys.argv[1], *map(Path, sys.argv[2:])
    images = np.load(calibration)["input"]
    run = PEERS[name]()
    started, spent = time.perf_counter(), time.process_time()
    run(source, images, result)
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": time.process_time() - spent}))


if __name__ == "__main__":
    main()

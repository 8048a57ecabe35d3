"""One quantization by a peer, in its own environment: ``peer.py '{"peer": ..., "model": ..., "result": ..., ...}'``.

Prints what passes from reading the float file to the written quantized file; imports are not counted. Settings are
those that each peer's documentation recommends for x86 CPUs: per-channel int8 weights, uint8 activations.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from spending import order, spending  # beside this file


class Reader:
    """Batches of calibration images, as ONNX Runtime asks for them."""

    def __init__(self, images: Any, batch: int) -> None:
        self._batches = iter(range(0, len(images), batch))
        self._images, self._batch = images, batch

    def get_next(self) -> dict[str, Any] | None:
        start = next(self._batches, None)
        return None if start is None else {"input": np.array(self._images[start : start + self._batch])}


def ort_static(
    images: Any, method: str, batch: int = 1, per_channel: bool = True, reduce_range: bool = False
) -> Callable[[Path, Path], None]:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    def run(source: Path, result: Path) -> None:
        quantize_static(
            str(source),
            str(result),
            Reader(images, batch),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )

    return run


def ort_dynamic(
    images: Any, operators: list[str] | None = None, reduce_range: bool = False
) -> Callable[[Path, Path], None]:
    import onnx  # noqa: PLC0415 (each peer alone)
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    def run(source: Path, result: Path) -> None:
        model = onnx.load(str(source))
        # It transposes weights of Gemm and keeps the shapes that PyTorch's exporter noted of them: then it fails with
        # "Inferred shape and existing shape differ", also behind its own pre-processing.
        del model.graph.value_info[:]
        quantize_dynamic(
            model,
            str(result),
            op_types_to_quantize=operators,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )

    return run


def nncf_onnx(images: Any, **options: Any) -> Callable[[Path, Path], None]:
    import onnx  # noqa: PLC0415 (each peer alone)

    quantize = _nncf(images, **options)

    def run(source: Path, result: Path) -> None:
        onnx.save(quantize(onnx.load(str(source))), str(result))

    return run


def nncf_openvino(images: Any, **options: Any) -> Callable[[Path, Path], None]:
    """The result is zipped as Modelpress does it, for the same session to read."""
    import openvino  # noqa: PLC0415 (each peer alone)

    quantize = _nncf(images, **options)

    def run(source: Path, result: Path) -> None:
        model = quantize(openvino.convert_model(str(source)))
        with tempfile.TemporaryDirectory(dir=result.parent) as folder:
            openvino.save_model(model, str(Path(folder) / "model.xml"), compress_to_fp16=False)
            with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
                for name in ("model.xml", "model.bin"):
                    archive.write(Path(folder) / name, name)

    return run


def _nncf(
    images: Any, transformer: bool = False, fast_bias_correction: bool = True, per_tensor: bool = False
) -> Callable[[Any], Any]:
    """`per_tensor`: one scale for each activation, also in front of depthwise convolutions."""
    import nncf  # noqa: PLC0415 (each peer alone)
    from nncf.quantization.advanced_parameters import QuantizationParameters  # noqa: PLC0415

    data = nncf.Dataset(range(len(images)), lambda index: {"input": np.array(images[index : index + 1])})
    advanced = nncf.AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=False) if per_tensor else None
    )
    return lambda model: nncf.quantize(
        model,
        data,
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        fast_bias_correction=fast_bias_correction,
        advanced_parameters=advanced,
    )


PEERS: dict[str, Callable[..., Callable[[Path, Path], None]]] = {
    "ort-static": ort_static,
    "ort-dynamic": ort_dynamic,
    "nncf-onnx": nncf_onnx,
    "nncf-openvino": nncf_openvino,
}


def main() -> None:
    job = order()
    data = np.load(job["calibration"], mmap_mode="r")
    images = data if isinstance(data, np.ndarray) else data["input"]
    run = PEERS[job["peer"]](images, **job.get("options", {}))
    with spending() as report:
        run(Path(job["model"]), Path(job["result"]))
    print(json.dumps(report))


if __name__ == "__main__":
    main()

"""The import itself: build the model without weights, give it those of the folder, export it, lift it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive
from worker.engine.formats.failures import FAILURES
from worker.engine.formats.lift import lift, quiet_export
from worker.engine.formats.program import from_exported, rename
from worker.engine.formats.tar import opened
from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES
from worker.engine.formats.transformers_reader.inputs import SEQUENCE, example_inputs, longest
from worker.engine.formats.transformers_reader.settings import (
    CONFIG,
    class_name,
    configuration,
    read_settings,
)
from worker.engine.formats.transformers_reader.shards import read_weights
from worker.engine.network import Network, Tokenizer

TOKENIZER: Final = "tokenizer.json"


def read_transformers(path: Path) -> Network:
    """Read a zip or tar of a folder that ``save_pretrained`` wrote; nothing in it is executed.

    Batch and, for text, sequence length are symbolic. Weights of float16 and bfloat16 are widened to float32.

    Raises:
        InvalidModel: damaged, weights missing or of other shapes than the configuration says.
        Unsupported: a model or head beyond `ARCHITECTURES` and `HEADS`.
    """
    archive = opened(path) or Archive(path)
    settings = read_settings(archive)
    name = class_name(settings)
    weights, checks = read_weights(archive)
    with ThreadPoolExecutor(1) as pool:
        checked = [pool.submit(check) for check in checks]  # gigabytes, while PyTorch exports
        config = configuration(settings, weights)
        model, notes = _model(name, config, weights)
        network = _exported(name, model, archive, config)
        for future in checked:
            future.result()
    archive.mapped.settle(network.module)
    network.notes[:0] = notes
    network.tokenizer = _tokenizer(archive, config)
    return _named(network)


def _exported(name: str, model: nn.Module, archive: Archive, config: Any) -> Network:
    try:
        inputs, shapes = example_inputs(archive, config, model)
        with torch.no_grad():
            return lift(from_exported(quiet_export(model, (), shapes, inputs)), "transformers")
    except (*FAILURES, ImportError) as error:
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE,
            f"{name} cannot be exported as this folder sets it up: {str(error)[:400]}. Export it to ONNX or .pt2 where "
            "it runs, and upload that.",
        ) from error


def _tokenizer(archive: Archive, config: Any) -> Tokenizer | None:
    if ARCHITECTURES[config.model_type] != "text" or TOKENIZER not in archive.entries:
        return None
    return Tokenizer(archive.text(TOKENIZER), longest(config))


def _named(network: Network) -> Network:
    """The network with its second symbol, where it takes text, by its name."""
    symbol = network.inputs[0].shape[1]
    if not isinstance(symbol, str):
        return network
    inputs, outputs = (
        tuple(rename(spec, {symbol: SEQUENCE}) for spec in specs) for specs in (network.inputs, network.outputs)
    )
    return replace(network, inputs=inputs, outputs=outputs)


def _model(name: str, config: Any, weights: dict[str, Tensor]) -> tuple[nn.Module, list[str]]:
    """The model with its weights, in evaluation mode, and what to tell the user."""
    import transformers  # noqa: PLC0415

    cls, notes = getattr(transformers, name), []
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with torch.device("meta"):
            wanted = sum(p.numel() for p in cls(config).parameters())
        stored = sum(tensor.numel() for tensor in weights.values())
        if wanted > 2 * stored:
            raise InvalidModel(
                codes.FILE_INCOMPLETE, f"{CONFIG!r} describes {wanted} parameters; the folder holds {stored}."
            )
        model, report = cls.from_pretrained(
            None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
        )
    except (*FAILURES, ImportError) as error:
        raise InvalidModel(
            codes.WEIGHTS_INVALID, f"The weights do not fit {name} as {CONFIG!r} describes it: {str(error)[:400]}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InvalidModel(
            codes.FILE_INCOMPLETE,
            f"{len(missing)} weights of {name} are not in the folder, such as {missing[0][:120]!r}. "
            "Set 'architectures' in config.json to the class that the weights were saved from.",
        )
    unused = sorted(report["unexpected_keys"])
    if unused:
        notes.append(f"{len(unused)} weights of the folder belong to no part of {name}, such as {unused[0]!r}.")
    narrow = sorted({str(t.dtype).removeprefix("torch.") for t in weights.values() if _is_narrow(t)})
    if narrow:
        notes.append(f"Weights of {', '.join(narrow)} were widened to float32.")
    return model.eval(), notes


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32

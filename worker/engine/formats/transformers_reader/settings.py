"""``config.json``: which class of transformers the folder was saved from, and how it is set up."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive
from worker.engine.formats.failures import FAILURES
from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES, HEADS

CONFIG: Final = "config.json"
#: Settings that load code, name other files, or change what the model returns.
_DROPPED: Final = frozenset(
    (
        *("auto_map", "torchscript", "dtype", "torch_dtype", "use_cache"),
        *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward"),
    )
)
#: Largest number of any setting: no vocabulary has more words.
_LARGEST: Final = 1_000_000
#: Settings that say how many parts there are: at most as many as there are weights.
_COUNTS: Final = re.compile("layers|depths|groups|group_num|repeats|stages|blocks|convs")
#: Settings that others are multiplied by, and the most that they may be.
_FACTORS: Final = re.compile("coefficient|multiplier|ratio")
_FACTOR: Final = 16


def read_settings(archive: Archive) -> dict[str, Any]:
    """The object in ``config.json``."""
    if CONFIG not in archive.entries:
        raise InvalidModel(codes.FILE_INCOMPLETE, f"The folder lacks {CONFIG!r}. Save it with save_pretrained().")
    try:
        settings = json.loads(archive.text(CONFIG), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(codes.SCHEMA_INVALID, f"{CONFIG!r} is not JSON: {str(error)[:200]}") from error
    if not isinstance(settings, dict):
        raise InvalidModel(codes.SCHEMA_INVALID, f"{CONFIG!r} is not an object.")
    if settings.get("quantization_config"):
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE, "The model is already quantized. Upload the one that it was made from."
        )
    if settings.get("is_decoder") or settings.get("is_encoder_decoder"):
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE, "Decoders are not read as folders: export it to ONNX or .pt2."
        )
    return settings


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def class_name(settings: dict[str, Any]) -> str:
    """The class of transformers that the folder was saved from."""
    kind, listed = str(settings.get("model_type")), settings.get("architectures")
    if kind not in ARCHITECTURES:
        remote = " It comes with code of its own, which is never run." if settings.get("auto_map") else ""
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE,
            f"Models of type {kind[:80]!r} are not read as folders.{remote} Export the model to ONNX or .pt2 and "
            f"upload that. Read are: {', '.join(sorted(ARCHITECTURES))}.",
        )
    from transformers.models.auto import modeling_auto as auto  # noqa: PLC0415  # seconds; only folders need it

    base = auto.MODEL_MAPPING_NAMES[kind]
    known = {str(base)}
    for table in (table for name, table in vars(auto).items() if name.endswith("MAPPING_NAMES")):
        names = table.get(kind, ())
        listed_there = [names] if isinstance(names, str) else names
        known |= {str(name) for name in listed_there if name and str(name).endswith(HEADS)}
    if not listed:
        return str(base)
    if not isinstance(listed, list) or not isinstance(listed[0], str) or listed[0] not in known:
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE,
            f"The class {str(listed)[:80]} is not read for models of type {kind!r}. Read are: "
            f"{', '.join(sorted(known))}.",
        )
    return listed[0]


def configuration(settings: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """The configuration: what its class declares, without what could load code or files, bounded by the weights."""
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    cls = CONFIG_MAPPING[settings["model_type"]]
    declared = {field.name for field in dataclasses.fields(cls)} | {*cls.attribute_map} | {"num_labels"}
    kept = {key: value for key, value in settings.items() if key in declared - _DROPPED}
    rows = max((tensor.shape[0] for tensor in weights.values() if tensor.dim()), default=0)
    for key, number in _numbers(kept):
        largest = rows if key == "num_labels" else len(weights) if _COUNTS.search(key) else _LARGEST
        largest = _FACTOR if _FACTORS.search(key) else largest
        if not math.isfinite(number) or abs(number) > largest:
            raise InvalidModel(
                codes.SCHEMA_INVALID,
                f"{CONFIG!r} says {key[:80]!r} is {str(number)[:40]}; with the {len(weights)} weights of the folder it "
                f"can be {largest} at most.",
            )
    try:
        config = cls.from_dict(kept)
        padding = getattr(config, "pad_token_id", None)
        if padding is not None and not 0 <= padding < config.vocab_size:
            raise ValueError(f"pad_token_id {padding} is no word")
    except (*FAILURES, ImportError, StrictDataclassError) as error:
        raise InvalidModel(codes.SCHEMA_INVALID, f"{CONFIG!r} does not describe a model: {str(error)[:300]}") from error
    return config


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number of the settings, with the name of the setting that it is in."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, key or str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif isinstance(value, (int, float)):
        yield key, value

"""``config.json``: which class of transformers the folder was saved from, and how it is set up."""

import json
from typing import Any, Final

from torch import Tensor

from worker.engine.errors import InvalidModel, Unsupported
from worker.engine.formats import codes
from worker.engine.formats.archive import Archive
from worker.engine.formats.transformers_reader.architectures import ARCHITECTURES, HEADS

CONFIG: Final = "config.json"
#: Keys of config.json that load code, name other files, or change what the model returns.
_DROPPED: Final = frozenset(
    (
        *("auto_map", "custom_pipelines", "torchscript", "attn_implementation", "experts_implementation"),
        *("torch_dtype", "dtype", "use_cache", "output_attentions", "output_hidden_states"),
        *("return_dict", "use_return_dict", "name_or_path"),
    )
)
_LARGEST: Final = 10_000_000  # of any number in a config: more words than any vocabulary has
#: What transformers and PyTorch raise on settings that make no sense.
FAILURES: Final = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError)


def read_settings(archive: Archive) -> dict[str, Any]:
    """The object in ``config.json``."""
    if CONFIG not in archive.entries:
        raise InvalidModel(codes.FILE_INCOMPLETE, f"The folder lacks {CONFIG!r}. Save it with save_pretrained().")
    try:
        settings = json.loads(archive.text(CONFIG))
    except (ValueError, RecursionError) as error:
        raise InvalidModel(codes.SCHEMA_INVALID, f"{CONFIG!r} is not JSON: {str(error)[:200]}") from error
    if not isinstance(settings, dict):
        raise InvalidModel(codes.SCHEMA_INVALID, f"{CONFIG!r} is not an object.")
    if settings.get("quantization_config"):
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE, "The model is already quantized. Upload the one that it was made from."
        )
    return settings


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
    if not isinstance(listed, list) or listed[0] not in known:
        raise Unsupported(
            codes.UNSUPPORTED_ARCHITECTURE,
            f"The class {str(listed)[:80]} is not read for models of type {kind!r}. Read are: "
            f"{', '.join(sorted(known))}.",
        )
    return str(listed[0])


def configuration(settings: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """The configuration, without what could load code or files, and bounded by the weights that are there."""
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415

    kept = {key: value for key, value in settings.items() if key not in _DROPPED and not key.startswith("_")}
    for key, value in kept.items():
        numbers = [value] if isinstance(value, int) else value if isinstance(value, list) else []
        layers = "layers" in key or "depths" in key
        largest = len(weights) if layers else _LARGEST
        if any(isinstance(number, int) and number > largest for number in numbers):
            raise InvalidModel(
                codes.SCHEMA_INVALID,
                f"{CONFIG!r} says {key[:80]!r} is {str(value)[:40]}; the folder has {len(weights)} weights.",
            )
    try:
        return CONFIG_MAPPING[settings["model_type"]].from_dict(kept)
    except (*FAILURES, ImportError, StrictDataclassError) as error:
        raise InvalidModel(codes.SCHEMA_INVALID, f"{CONFIG!r} does not describe a model: {str(error)[:300]}") from error

"""What the service says to a ``.pt2``, in the order in which it looks: the archive, the program, its weights."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from modelpress.inspection import tables
from modelpress.inspection.archive import Archive
from modelpress.inspection.detect import OLD_PT2
from modelpress.inspection.program import Program
from modelpress.inspection.report import Findings, Operator, Refused, is_float, itemsize

_RESAVE: Final = "torch.export.save(torch.export.load('old.pt2'), 'new.pt2')"
_STRIDED: Final = 7
_LARGE_SAMPLES: Final = 1 << 20
_PLAIN: Final = ("weight_", "tensor_")
_MALFORMED: Final = (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError, OverflowError)
_PICKLED: Final = (
    "The archive holds {what!r} as a pickled Python object, which can run code when it is loaded. Only plain tensors "
    "are accepted: move such objects out of the model and export it again."
)


def inspect(archive: Archive, findings: Findings) -> None:
    """Report on the program in `archive`."""
    findings.format = "pt2"
    models = [name for name in archive.entries if name.startswith("models/") and name.endswith(".json")]
    old = not models and OLD_PT2 in archive.entries
    if len(models) != 1 and not old:
        found = f"{len(models)} models" if models else "no model (no entry models/*.json)"
        raise Refused(
            "file_incomplete",
            f"The archive holds {found}, where one is needed. Save it with torch.export.save().",
        )
    entry = OLD_PT2 if old else models[0]
    try:
        document = json.loads(archive.text(entry))
        _check_version(document, findings, old=old)
        program = Program(document)
        _describe(program, findings)
        _check_program(program, later := Findings())
    except _MALFORMED as error:
        raise Refused(
            "schema_invalid",
            f"The program in the file is not what PyTorch writes: {type(error).__name__} {error}"[:300],
        ) from error
    places: dict[str, str] = {}
    if not old:
        places = _check_weights(archive, entry.rpartition("/")[2].removesuffix(".json"), findings)
    try:
        _count(program, places, findings)
    except _MALFORMED as error:
        raise Refused("schema_invalid", f"A weight of the program is not described: {error}"[:300]) from error
    findings.operators_refused()
    findings.problems += later.problems
    findings.batch()
    samples = sum(one.size for name, one in archive.entries.items() if name.startswith("data/sample_inputs/"))
    if samples > _LARGE_SAMPLES:
        findings.notes.append(
            f"The file carries {samples / 1e6:.1f} MB of sample inputs, which are left out. A sample that is a slice "
            "of a large tensor drags all of it along: export with a clone of it."
        )


def _check_version(document: Any, findings: Findings, *, old: bool) -> None:
    major, minor = (int(document["schema_version"][part]) for part in ("major", "minor"))
    findings.version = f"schema {major}.{minor}"
    producer = document.get("torch_version")
    findings.producer = f"torch {producer}"[:80] if isinstance(producer, str) else None
    known, newest = tables.table()["pt2"]["schema"]
    if major == known and minor <= newest:
        if old:
            findings.notes.append(
                "The file has the layout that PyTorch wrote before 2.8; newer versions write another."
            )
        return
    raise Refused(
        "schema_version_unsupported",
        f"The file is of schema {major}.{minor}, written by a PyTorch that is too "
        f"{'new' if (major, minor) > (known, newest) else 'old'}; schema {known}.0 to {known}.{newest} is read "
        f"(PyTorch 2.6 to 2.14). Save it with one of those: {_RESAVE}",
    )


def _describe(program: Program, findings: Findings) -> None:
    findings.inputs, findings.outputs = program.inputs(), program.outputs()
    known = tables.aten_targets()
    calls = Counter(program.calls())
    supported = {_short(target): target in known for target in calls}
    named: Counter[str] = Counter()
    for target, count in calls.items():
        named[_short(target)] += count
    findings.operators = tuple(
        Operator(name=name, count=count, supported=supported[name]) for name, count in named.most_common()
    )


def _short(target: str) -> str:
    return target.removeprefix("torch.ops.").removesuffix(".default")[:80]


def _count(program: Program, places: dict[str, str], findings: Findings) -> None:
    """Count parameters and bytes; weights that are tied, at one place in the file, once."""
    weights = {
        places.get(name, name): (dtype, math.prod(shape), trained) for name, dtype, shape, trained in program.weights()
    }
    findings.parameters = sum(count for dtype, count, trained in weights.values() if trained and is_float(dtype))
    findings.weight_bytes = sum(count * itemsize(dtype) for dtype, count, _ in weights.values())


def _check_weights(archive: Archive, model: str, findings: Findings) -> dict[str, str]:
    """What the archive says of its weights and constants, without their values; where each of them lies."""
    places: dict[str, str] = {}
    for kind in ("weights", "constants"):
        folder = f"data/{kind}/"
        config, saved = f"{folder}{model}_{kind}_config.json", f"{folder}{model}.pt"
        if saved in archive.entries:
            if config in archive.entries:
                findings.refuse(
                    "unsafe_format",
                    f"The archive holds {saved!r}, a pickle that can run code. Save it again: {_RESAVE}",
                )
            continue  # the layout of PyTorch 2.8
        text = archive.text(config)
        try:
            payloads = json.loads(text)["config"]
            for code, detail in _wrong_payloads(archive, folder, payloads):
                findings.refuse(code, detail)
            for name, payload in payloads.items():
                layout = {
                    key: (payload["tensor_meta"] or {}).get(key) for key in ("sizes", "strides", "storage_offset")
                }
                places[name] = f"{folder}{payload['path_name']} {json.dumps(layout)}"
        except _MALFORMED as error:
            raise Refused("schema_invalid", f"{config!r} is not what PyTorch writes: {error}"[:300]) from error
    return places


def _wrong_payloads(archive: Archive, folder: str, payloads: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The first thing that is wrong, pickles before all else."""
    for name, payload in payloads.items():
        meta, path = payload["tensor_meta"], payload["path_name"]
        if payload["use_pickle"] or meta is None or not path.startswith(_PLAIN):
            yield "unsafe_format", _PICKLED.format(what=name)
            return
    dtypes = tables.table()["pt2"]["dtypes"]
    for name, payload in payloads.items():
        meta, entry = payload["tensor_meta"], archive.entries.get(folder + payload["path_name"])
        if meta["layout"] != _STRIDED:
            yield "unsupported_input", f"Weight {name!r} is not a dense tensor."
        elif str(meta["dtype"]) not in dtypes:
            yield "unsupported_input", f"The model holds tensors of type number {meta['dtype']}."
        elif entry is None:
            yield "file_incomplete", f"The archive lacks {folder + payload['path_name']!r}. Save the model again."
        elif problem := _misfit(name, meta, entry.size // itemsize(dtypes[str(meta["dtype"])])):
            yield "weights_invalid", problem
        else:
            continue
        return


def _misfit(name: str, meta: dict[str, Any], stored: int) -> str | None:
    numbers = [value.get("as_int", -1) for value in (*meta["sizes"], *meta["strides"], meta["storage_offset"])]
    dims = len(meta["sizes"])
    if any(not 0 <= number < 2**48 for number in numbers):
        return f"Weight {name!r} has a size or stride that is not a plain number."
    if len(meta["strides"]) != dims or dims > 16:
        return f"Weight {name!r} has {dims} sizes but {len(meta['strides'])} strides."
    sizes, strides, offset = numbers[:dims], numbers[dims:-1], numbers[-1]
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if math.prod(sizes) and last >= stored:
        return f"Weight {name!r} of shape {sizes} does not fit into its {stored} elements."
    return None


def _check_program(program: Program, findings: Findings) -> None:
    if code := program.code():
        findings.refuse("unsafe_format", f"A shape expression of the file holds what is no expression: {code[:60]!r}.")
    for kind in program.foreign_inputs():
        findings.refuse("unsupported_input", f"The model has an input of kind {kind}.")
    counters = tables.table()["pt2"]["counters"]
    for buffer in program.mutated():
        if buffer.rpartition(".")[2] not in counters:
            findings.refuse(
                "stateful_model",
                f"The model changes its own buffer {buffer!r} while it runs, so its answer depends on earlier calls. "
                "Pass such state as an input and return it as an output.",
            )
            return

"""Text is tokenized by what came with the model."""

import base64
import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, processors

from worker.engine.data import words
from worker.engine.data.prepare import prepare
from worker.engine.errors import InvalidDataset, InvalidModel
from worker.engine.network import TensorSpec, Tokenizer

VOCABULARY = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "red": 4, "green": 5, "blue": 6}


def tokenizer(longest=16):
    library = Library(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return Tokenizer(library.to_str().encode(), longest)


def written(path, lines):
    path.write_text("\n".join(lines))
    return path


def test_lines_become_columns_padded_to_the_longest(tmp_path):
    table = words.encode(written(tmp_path / "x.txt", ["red", "green blue pink"]), tokenizer(), "calibration")
    assert table["input_ids"].tolist() == [[1, 4, 2, 0, 0], [1, 5, 6, 3, 2]]
    assert table["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert not table["token_type_ids"].any()
    assert all(column.dtype == np.int64 for column in table.values())


def test_long_texts_are_cut_as_the_model_can_take_them(tmp_path):
    table = words.encode(written(tmp_path / "x.txt", ["red " * 50]), tokenizer(longest=6), "calibration")
    assert table["input_ids"].tolist() == [[1, 4, 4, 4, 4, 2]]


def test_jsonl(tmp_path):
    path = written(tmp_path / "x.jsonl", [json.dumps({"text": "red"}), json.dumps({"text": "blue"})])
    assert words.is_text(path)
    assert words.encode(path, tokenizer(), "calibration")["input_ids"].tolist() == [[1, 4, 2], [1, 6, 2]]


def test_tensors_are_no_text(tmp_path):
    np.savez(tmp_path / "x.npz", input=np.zeros(3))
    assert not words.is_text(tmp_path / "x.npz")
    (tmp_path / "empty").touch()
    assert not words.is_text(tmp_path / "empty")


def test_a_model_without_a_tokenizer(tmp_path):
    with pytest.raises(InvalidDataset, match=r"dataset_kind_unsupported.*tokenizer\.json"):
        words.encode(written(tmp_path / "x.txt", ["red"]), None, "calibration")


@pytest.mark.parametrize("definition", [b"", b"{}", b"\xff", b'{"model": {"type": "Python"}}', b"[" * 100_000])
def test_a_tokenizer_that_is_none(definition, tmp_path):
    with pytest.raises(InvalidModel, match="tokenizer_invalid"):
        words.encode(written(tmp_path / "x.txt", ["red"]), Tokenizer(definition, 8), "calibration")


def changed(longest=16, **parts):
    definition = json.loads(tokenizer().definition)
    return Tokenizer(json.dumps({**definition, **parts}).encode(), longest)


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


LYING_MAP = base64.b64encode(b"\xff" * 4 + b"x\0").decode()
CHARACTER_MAP = base64.b64encode(bytes(4) + b"x" * 100_000 + b"\0").decode()


@pytest.mark.parametrize(
    "parts",
    [
        {"model": {"type": "WordLevel", "vocab": {"red": 0}, "unk_token": "[UNK]"}},
        {"normalizer": replace({"String": "e"}, "e" * 1000)},
        {"normalizer": replace({"String": ""}, "e" * 1000)},
        {"normalizer": sequence(*[replace({"String": "e"}, "eee")] * 6)},
        {"normalizer": sequence(sequence(*[replace({"Regex": ""}, "e")] * 6))},
        {"normalizer": sequence(*[{"type": "Lowercase"}] * 1000)},
        {"normalizer": sequence(*[{"type": "ByteLevel"}] * 10)},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARACTER_MAP}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": LYING_MAP}},
        {"normalizer": {"type": "Prepend", "prepend": "x" * 100_000}},
        {"post_processor": {
            "type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"A": {"id": "A", "ids": [1] * 1000, "tokens": ["a"] * 1000}},
        }},
    ],
)  # fmt: skip
def test_a_tokenizer_that_fails_or_multiplies_texts(parts, tmp_path):
    with pytest.raises(InvalidModel, match="tokenizer_invalid"):
        words.encode(written(tmp_path / "x.txt", ["red pink"]), changed(**parts), "calibration")


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    "pattern", [r"(a+)\1+b", r"\\(a)\1", r"(?<n>a\g<n>*)b", r"(?<n>a)\k<n>", "(a)?(?(1)b|c)", "(?~a)", r"a\\\\\g'n'"]
)
def test_regular_expressions_that_may_never_end(pattern, tmp_path):
    """Their matching is not bounded by the library's count of steps."""
    with pytest.raises(InvalidModel, match=r"tokenizer_invalid.*its own groups"):
        words.encode(written(tmp_path / "x.txt", ["red"]), changed(pre_tokenizer=split(pattern)), "calibration")


@pytest.mark.parametrize(
    "pattern",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?=(\d{3})+(?!\d))|(?<=a)b|(?>a|b)|\\1|\\\\g<n>|\G",
    ],
)
def test_regular_expressions_that_models_have(pattern, tmp_path):
    path = written(tmp_path / "x.txt", ["red"])
    assert words.encode(path, changed(pre_tokenizer=split(pattern)), "calibration")["input_ids"].size


def test_normalizers_that_models_have(tmp_path):
    steps = (replace({"String": "``"}, '"'), {"type": "NFKD"}, {"type": "Lowercase"}, replace({"Regex": " {2,}"}, " "))
    path = written(tmp_path / "x.txt", ["RED  blue"])
    table = words.encode(path, changed(normalizer=sequence(*steps)), "calibration")
    assert table["input_ids"].tolist() == [[1, 4, 6, 2]]


def test_never_more_tokens_than_the_model_takes(tmp_path):
    path = written(tmp_path / "x.txt", ["red", "red blue"])
    assert words.encode(path, changed(longest=1), "calibration")["input_ids"].tolist() == [[1], [1]]


def test_prepared_for_a_model_of_two_inputs(tmp_path):
    shape = ("batch", "sequence")
    inputs = tuple(TensorSpec(name, "int64", shape) for name in ("input_ids", "attention_mask"))
    path = written(tmp_path / "x.txt", ["red green"] * 30)
    prepared = prepare({"calibration": path}, (inputs, ()), None, 0, tmp_path / "scratch", tokenizer())
    calibration = prepared.split.calibration
    assert set(calibration.inputs) == {"input_ids", "attention_mask"}
    assert calibration.inputs["input_ids"].shape[1] == 4

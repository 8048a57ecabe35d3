"""A ``tokenizer.json`` that takes forever, fills memory, or makes its library panic."""

import base64
import json
from typing import Any

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make

TOKENIZERS = Group("tokenizer.json")
INVALID = "tokenizer_invalid"


def with_parts(**parts: Any) -> Make:
    """The good tokenizer with other parts."""
    return lambda canary: json.dumps(good.tokenizer() | parts).encode()


def model(kind: str, **fields: Any) -> Make:
    """The good tokenizer with another model."""
    return with_parts(model={"type": kind, **fields})


def regex(pattern: str) -> dict[str, Any]:
    """A pattern."""
    return {"Regex": pattern}


_CATASTROPHES = {
    "nested-plus": "(a+)+$",
    "nested-star": "(a*)*b",
    "alternatives": "(a|a)*b",
    "alternatives-optional": "(a|a?)+$",
    "words": "(x+x+)+y",
    "polynomial": "a*a*a*a*a*a*a*a*a*b",
    "back-reference": r"(a+)\1+\1+\1+b",
    "look-ahead": "(?=(a+)+$)b",
    "look-behind": "(?<=a)(a+)+b",
    "possessive": "(a++)++b",
    "counted": "(a{1,1000}){1,1000}b",
    "counted-deep": "((((a{1,99}){1,99}){1,99}){1,99}){1,99}b",
    "unicode": r"(\p{L}+)+\d",
    "empty": "(|a)+b",
    "recursion": r"(?<n>a\g<n>*)b",
    "recursion-endless": r"(?<n>\g<n>)",
    "conditional": "(a)?(?(1)(a+)+|b)c",
}
for _name, _pattern in _CATASTROPHES.items():
    TOKENIZERS.tokenizer(
        f"split-{_name}",
        with_parts(
            pre_tokenizer={"type": "Split", "pattern": regex(_pattern), "behavior": "Isolated", "invert": False}
        ),
        ACCEPTED,
        INVALID,
    )
    TOKENIZERS.tokenizer(
        f"replace-{_name}",
        with_parts(normalizer={"type": "Replace", "pattern": regex(_pattern), "content": "b"}),
        ACCEPTED,
        INVALID,
    )
_PATTERNS = {
    "broken": "(a",
    "brackets": "(" * 20_000,
    "closed-brackets": "(" * 5000 + ")" * 5000,
    "megabytes": "a" * 2_000_000,
    "counted-huge": "a{100000}{100000}",
    "class-huge": "[" + "".join(map(chr, range(0x4E00, 0x9000))) + "]",
    "nul": "a\0b",
    "surrogate": "\ud800",
}
for _name, _pattern in _PATTERNS.items():
    TOKENIZERS.tokenizer(
        f"pattern-{_name}",
        with_parts(
            pre_tokenizer={"type": "Split", "pattern": regex(_pattern), "behavior": "Isolated", "invert": False}
        ),
        ACCEPTED,
        INVALID,
    )
_REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000_000}
_NORMALIZERS: dict[str, Any] = {
    "grows": _REPLACE,
    "grows-in-a-sequence": {"type": "Sequence", "normalizers": [{**_REPLACE, "content": "aaaa"}] * 30},
    "sequence-long": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 10_000},
    "prepend-huge": {"type": "Prepend", "prepend": "x" * 5_000_000},
    "empty-pattern": {**_REPLACE, "pattern": {"String": ""}},
    "precompiled-noise": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes(range(256))).decode()},
    "precompiled-empty": {"type": "Precompiled", "precompiled_charsmap": ""},
    "precompiled-lies": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff\xff\xff\xff").decode()},
    "unknown": {"type": "Evil"},
    "number": 7,
    "list": [],
    "text": "NFC",
    "pattern-number": {**_REPLACE, "pattern": 7},
    "no-content": {"type": "Replace", "pattern": {"String": "a"}},
    "sequence-of-itself": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}] * 3},
}
for _name, _part in _NORMALIZERS.items():
    TOKENIZERS.tokenizer(f"normalizer-{_name}", with_parts(normalizer=_part), ACCEPTED, INVALID)


def nested(depth: int) -> Any:
    """Sequences of sequences."""
    part: Any = {"type": "NFC"}
    for _ in range(depth):
        part = {"type": "Sequence", "normalizers": [part]}
    return part


_BIG = {f"token{index}": index for index in range(300_000)}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vocabulary-giant": ("WordLevel", {"vocab": {"[UNK]": 300_000, **_BIG}, "unk_token": "[UNK]"}),
    "vocabulary-negative": ("WordLevel", {"vocab": {"a": -1}, "unk_token": "a"}),
    "vocabulary-beyond": ("WordLevel", {"vocab": {"a": 2**40}, "unk_token": "a"}),
    "vocabulary-largest": ("WordLevel", {"vocab": {"a": 2**32 - 1}, "unk_token": "a"}),
    "vocabulary-same-number": ("WordLevel", {"vocab": {"a": 1, "b": 1}, "unk_token": "a"}),
    "vocabulary-empty": ("WordLevel", {"vocab": {}, "unk_token": "x"}),
    "unknown-missing": ("WordLevel", {"vocab": {"a": 1}, "unk_token": "nothing"}),
    "merges-missing": ("BPE", {"vocab": {"a": 0}, "merges": [["b", "c"]]}),
    "merges-odd": ("BPE", {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a", "a b c", ""]}),
    "bpe-dropout": ("BPE", {"vocab": {"a": 0}, "merges": [], "dropout": 7.0}),
    "bpe-prefix": ("BPE", {"vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "x" * 1_000_000}),
    "merges-that-grow": (
        "BPE",
        {"vocab": {"a" * 2**n: n for n in range(12)}, "merges": [["a" * 2**n, "a" * 2**n] for n in range(11)]},
    ),
    "wordpiece-long": (
        "WordPiece",
        {
            "vocab": {"[UNK]": 0, "a": 1},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 10**9,
        },
    ),
    "unigram-nan": ("Unigram", {"vocab": [["<unk>", None], ["a", -1.0]], "unk_id": 0}),
    "unigram-beyond": ("Unigram", {"vocab": [["a", -1.0]], "unk_id": 10**6}),
    "unigram-empty": ("Unigram", {"vocab": [], "unk_id": 0}),
    "unigram-infinite": ("Unigram", {"vocab": [["a", 1e308], ["aa", 1e308]], "unk_id": 0}),
    "unknown": ("Evil", {}),
}
for _name, (_kind, _fields) in _MODELS.items():
    TOKENIZERS.tokenizer(f"model-{_name}", model(_kind, **_fields), ACCEPTED, INVALID)
_POST = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]
_PARTS: dict[str, dict[str, Any]] = {
    "normalizers-deep": {"normalizer": nested(100)},
    "added-tokens-many": {
        "added_tokens": [
            {
                "id": 5 + i,
                "content": f"<{i}>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i in range(20_000)
        ]
    },
    "added-token-empty": {
        "added_tokens": [
            {
                "id": 5,
                "content": "",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": True,
                "special": False,
            }
        ]
    },
    "added-token-beyond": {
        "added_tokens": [
            {
                "id": 2**32 - 1,
                "content": "<x>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": True,
                "special": False,
            }
        ]
    },
    "template-long": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*_POST * 5000, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": _POST,
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}},
        }
    },
    "template-many-ids": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*_POST, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": _POST,
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1] * 100_000, "tokens": ["x"] * 100_000}},
        }
    },
    "template-without-texts": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _POST,
            "pair": _POST,
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}},
        }
    },
    "padding-huge": {
        "padding": {
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    },
    "padding-negative": {
        "padding": {
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": 0,
            "pad_id": 2**32 - 1,
            "pad_type_id": 2**32 - 1,
            "pad_token": "x",
        }
    },
    "truncation-zero": {"truncation": {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0}},
    "truncation-stride": {
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 100}
    },
    "decoder-unknown": {"decoder": {"type": "Evil"}},
    "version": {"version": "9.9"},
    "unknown-keys": {"auto_map": "x", "code": "import os"},
    "pre-tokenizer-metaspace": {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "xx", "prepend_scheme": "always", "split": True}
    },
    "pre-tokenizer-bytes": {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    },
}
for _name, _parts in _PARTS.items():
    TOKENIZERS.tokenizer(f"part-{_name}", with_parts(**_parts), ACCEPTED, INVALID)
_JSON = {
    "deep": b"[" * 500_000,
    "deep-object": b'{"normalizer":' * 50_000,
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"7",
    "not-utf8": b"\xff\xfe",
    "nan": b'{"version": NaN}',
    "pickle": b"\x80\x04cos\nsystem\n.",
    "digits": b'{"version": ' + b"9" * 100_000 + b"}",
    "overflow": b'{"model": {"type": "Unigram", "vocab": [["a", 1e999999]], "unk_id": 0}}',
}
for _name, _data in _JSON.items():
    TOKENIZERS.tokenizer(f"json-{_name}", lambda canary, data=_data: data, INVALID)

"""Lines that are no JSON, or more than anybody has memory for."""

import json
from collections.abc import Sequence

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make, always

TEXT = Group("text")
FEW = "dataset_too_few_samples"
BAD = "dataset_text_invalid"


def line(text: str | bytes, *more: str) -> Make:
    """Lines of JSON: this one behind a good one."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return lambda canary: good.jsonl() + data + b"\n" + b"".join(each.encode() for each in more)


def field(value: str) -> Make:
    """A line whose text is good, beside a field with this value."""
    return line(f'{{"text": "a", "other": {value}}}')


_VALUES = {
    "deep-lists": "[" * 100_000 + "]" * 100_000,
    "deep-objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "digits": "9" * 100_000,
    "negative-digits": "-" + "9" * 5000,
    "overflow": "1e999999",
    "underflow": "1e-999999",
    "nan": "NaN",
    "infinity": "-Infinity",
    "many-keys": json.dumps({f"k{i}": i for i in range(50_000)}),
    "surrogate": '"\\ud800"',
    "nul": '"\\u0000"',
    "exponent-of-digits": "1e" + "9" * 5000,
}
for _name, _value in _VALUES.items():
    TEXT.text(f"value-{_name}", field(_value), ACCEPTED, BAD)
_LINES: dict[str, tuple[str | bytes, Sequence[str]]] = {
    "open-lists": ("[" * 1_000_000, [BAD]),
    "open-objects": ('{"text":' * 100_000, [BAD]),
    "code": ("__import__('os')", [BAD]),
    "number": ("7", [BAD]),
    "null": ("null", [BAD]),
    "list": ('["text"]', [BAD]),
    "no-text": ('{"a": 1}', [BAD]),
    "text-is-null": ('{"text": null}', [BAD]),
    "text-is-a-number": ('{"text": 1}', [BAD]),
    "text-is-a-list": ('{"text": ["a"]}', [BAD]),
    "text-twice": ('{"text": 1, "text": "a"}', [ACCEPTED]),
    "lone-surrogate": ('{"text": "\\ud800"}', [BAD, ACCEPTED]),
    "raw-surrogate": (b'{"text": "\xed\xa0\x80"}', [BAD]),
    "overlong": (b'{"text": "\xc0\xaf"}', [BAD]),
    "not-utf8": (b"\xff\xfe\xfd", [BAD]),
    "utf-16": ('{"text": "a"}'.encode("utf-16"), [BAD]),
    "nul": ('{"text": "\\u0000"}', [ACCEPTED, BAD]),
    "raw-nul": (b'{"text": "a\0"}', [BAD]),
    "control": ('{"text": "\x1b[2J"}', [BAD, ACCEPTED]),
    "two-on-a-line": ('{"text": "a"} {"text": "b"}', [BAD]),
    "comment": ('// {"text": "a"}', [BAD]),
    "single-quotes": ("{'text': 'a'}", [BAD]),
    "bom-inside": ('\ufeff{"text": "a"}', [BAD, ACCEPTED]),
    "long": ('{"text": "' + "a" * (17 << 20) + '"}', [BAD]),
    "long-below": ('{"text": "' + "a" * (4 << 20) + '"}', [ACCEPTED]),
    "escapes": ('{"text": "' + "\\u0041" * 500_000 + '"}', [ACCEPTED]),
    "combining": ('{"text": "a' + "\u0301" * 500_000 + '"}', [ACCEPTED]),
    "separators": ('{"text": "a\u2028b\u2029c\x85d"}', [ACCEPTED, BAD]),
    "carriage-returns": ("\r" * 100_000, [ACCEPTED, BAD]),
    "white-space": (" " * 1_000_000, [ACCEPTED]),
    "cut": ('{"text": "a', [BAD]),
}
for _name, (_text, _codes) in _LINES.items():
    TEXT.text(f"line-{_name}", line(_text), *_codes)
TEXT.text("empty", always(b""), "empty_file")
TEXT.text("only-white-space", always(b" \n\t\n"), FEW)
TEXT.text("only-a-bom", always(b"\xef\xbb\xbf"), FEW)
TEXT.text("binary", always(bytes(range(256)) * 100), BAD)
TEXT.text("plain-with-nul", always(b"hello\0world\n"), ACCEPTED, BAD)
TEXT.text("plain-not-utf8", always("grün\n".encode("latin-1")), BAD)
TEXT.text("npz", always(good.npz()), BAD)
TEXT.text("bombed-gzip", always(b"\x1f\x8b" + bytes(100)), BAD)

"""Reading a pickle as data: a stack machine that knows containers, numbers and names, and can call nothing.

A pickle is a program: ``GLOBAL`` names anything that Python can import and ``REDUCE`` calls it. Here a name is a
`Name`, looked up in no module, and a call is a function of the reader that the caller hands in. `pickle.Unpickler`
with a strict ``find_class`` would do the same for names; but it is written for trusted input, and a number in the
file makes it reserve gigabytes (``LONG_BINPUT``) or recurse (the hash of nested tuples).

Instructions are those that `torch.save` needs for dictionaries of tensors, in protocol 2 and later.
See `pickletools` for what each means.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.engine.errors import InvalidModel, UnsafeFile
from worker.engine.formats import codes

#: A tensor takes some 150 bytes, 45 instructions and 15 places in the memo: room for 25 000 of them.
MAX_BYTES: Final = 4 << 20
MAX_STACK: Final = 1 << 16
MAX_MEMO: Final = 1 << 19
#: A pickler leaves numbers below 2**31 to other instructions; sizes end at 2**63.
_MAX_LONG: Final = 8


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names, such as ``torch.FloatStorage``: only the words."""

    text: str


def refusal(what: str) -> UnsafeFile:
    """The refusal of a file in which `what` is pickled."""
    return UnsafeFile(
        f"The archive holds {what[:200]!r} as a pickled Python object, which can run code when it is loaded. Only "
        "plain tensors are accepted: move such objects out of the model and export it again."
    )


def broken(what: str) -> InvalidModel:
    """The refusal of a pickle that makes no sense."""
    return InvalidModel(codes.WEIGHTS_INVALID, f"The pickled weights are not what PyTorch writes: {what[:300]}.")


Calls = Mapping[str, Callable[[tuple[object, ...]], object]]


def run(data: memoryview, calls: Calls, markers: frozenset[str], persistent: Callable[[object], object]) -> object:
    """The value that a pickle describes: None, bool, int, str, tuple, dict, `Name`, or what `calls` return.

    Args:
        data: the pickle.
        calls: what ``REDUCE`` may call, by name; each gets the tuple of arguments as it is in the pickle, unchecked.
        markers: names that may stand among the arguments.
        persistent: what a persistent id stands for; it is unchecked as well.

    Raises:
        UnsafeFile: a name that is not allowed, or an instruction that only code needs.
        InvalidModel: cut off, too large, or senseless.
    """
    if len(data) > MAX_BYTES:
        raise broken(f"they describe the tensors in {len(data)} bytes, where {MAX_BYTES} are allowed")
    if bytes(data[:1]) != b"\x80":
        raise broken("they do not start as a pickle of protocol 2 or later")
    return _Machine(bytes(data), calls, markers, persistent).run()


class _Machine:
    def __init__(
        self, data: bytes, calls: Calls, markers: frozenset[str], persistent: Callable[[object], object]
    ) -> None:
        self._data = data
        self._calls = calls
        self._markers = markers
        self._persistent = persistent
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        while (code := self._take(1)) != b".":
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise refusal(f"instruction 0x{code.hex()}")
            instruction(self)
            if len(self._stack) > MAX_STACK or len(self._marks) > MAX_STACK:
                raise broken("they nest too deeply")
        return self._pop()

    def _take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise broken("they are cut off")
        return self._data[self._at - count : self._at]

    def _number(self, form: struct.Struct) -> int:
        return int(form.unpack(self._take(form.size))[0])

    def _text(self, form: struct.Struct) -> str:
        try:
            return self._take(self._number(form)).decode()
        except UnicodeDecodeError as error:
            raise broken("a text is not UTF-8") from error

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise broken("they are cut off")
        line = self._take(end + 1 - self._at)
        return line[:-1].decode("utf-8", "replace")

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise broken("a value is missing")
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise broken("a mark is missing")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def push(self, value: object) -> None:
        self._stack.append(value)

    def number(self, form: struct.Struct) -> None:
        self.push(self._number(form))

    def long(self) -> None:
        size = self._number(_U1)
        if size > _MAX_LONG:
            raise broken("a number has too many digits")
        self.push(int.from_bytes(self._take(size), "little", signed=True))

    def text(self, form: struct.Struct) -> None:
        self.push(self._text(form))

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def tuple(self) -> None:
        self.push(tuple(self._since_mark()))

    def short_tuple(self, size: int) -> None:
        start = len(self._stack) - size
        if start < (self._marks[-1] if self._marks else 0):
            raise broken("a value is missing")
        self._stack[start:] = [tuple(self._stack[start:])]

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def set_items(self) -> None:
        self._update(self._since_mark())

    def _update(self, pairs: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, dict) or len(pairs) % 2:
            raise broken("entries without a dictionary")
        self.push(target)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):  # what nests is never hashed
                raise broken("a key of a dictionary is not a text")
            target[key] = value

    def build(self) -> None:
        """Attributes of a dictionary, such as the versions of the modules in a state dict: left out."""
        self._pop()
        if not isinstance(self._stack[-1] if self._stack else None, dict):
            raise refusal("an object with a state of its own")

    def put(self, form: struct.Struct | None) -> None:
        index = len(self._memo) if form is None else self._number(form)
        if len(self._memo) >= MAX_MEMO:
            raise broken("they remember too many values")
        value = self._pop()
        self._memo[index] = value
        self.push(value)

    def get(self, form: struct.Struct) -> None:
        index = self._number(form)
        if index not in self._memo:
            raise broken("a value is used before it is defined")
        self.push(self._memo[index])

    def name(self) -> None:
        self._named(self._line(), self._line())

    def name_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        self._named(module, name)

    def _named(self, module: object, name: object) -> None:
        text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "a name that is none"
        if text not in self._calls and text not in self._markers:
            raise refusal(text)
        self.push(Name(text))

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        call = self._calls.get(function.text) if isinstance(function, Name) else None
        if call is None:
            raise refusal(function.text if isinstance(function, Name) else "a call of what is no function")
        if not isinstance(arguments, tuple):
            raise broken("a call without arguments")
        self.push(call(arguments))

    def persistent(self) -> None:
        self.push(self._persistent(self._pop()))


_U1: Final = struct.Struct("<B")
_U2: Final = struct.Struct("<H")
_I4: Final = struct.Struct("<i")
_U4: Final = struct.Struct("<I")

_INSTRUCTIONS: Final[Mapping[bytes, Callable[[_Machine], object]]] = {
    b"\x80": lambda m: m._take(1),  # protocol
    b"\x95": lambda m: m._take(8),  # size of a frame
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.number(_U1),
    b"M": lambda m: m.number(_U2),
    b"J": lambda m: m.number(_I4),
    b"\x8a": _Machine.long,
    b"\x8c": lambda m: m.text(_U1),
    b"X": lambda m: m.text(_U4),
    b"(": _Machine.mark,
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.short_tuple(1),
    b"\x86": lambda m: m.short_tuple(2),
    b"\x87": lambda m: m.short_tuple(3),
    b"t": _Machine.tuple,
    b"}": lambda m: m.push({}),
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"q": lambda m: m.put(_U1),
    b"r": lambda m: m.put(_U4),
    b"\x94": lambda m: m.put(None),
    b"h": lambda m: m.get(_U1),
    b"j": lambda m: m.get(_U4),
    b"c": _Machine.name,
    b"\x93": _Machine.name_from_stack,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}

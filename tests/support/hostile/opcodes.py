"""Pickles written by hand: each reaches for code through another instruction of the pickle machine."""

import marshal
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

from tests.support.pt2_files import Payload, payload

Code = Callable[[Path], bytes]


def _text(value: str) -> bytes:
    """A text, by an instruction that protocol 2 has."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _command(canary: Path) -> str:
    return f"touch {canary}"


def reduce(canary: Path) -> bytes:
    """``GLOBAL os.system``, ``REDUCE``."""
    return b"\x80\x02cos\nsystem\n" + _text(_command(canary)) + b"\x85R."


def stack_global(canary: Path) -> bytes:
    """The name from the stack."""
    return b"\x80\x04" + _text("os") + _text("system") + b"\x93" + _text(_command(canary)) + b"\x85R."


def inst(canary: Path) -> bytes:
    """``INST``: name and call in one, of protocol 0."""
    return b"(S'" + _command(canary).encode() + b"'\nios\nsystem\n."


def obj(canary: Path) -> bytes:
    """``OBJ``: the class stands among the arguments."""
    return b"\x80\x02(cos\nsystem\n" + _text(_command(canary)) + b"o."


def newobj(canary: Path) -> bytes:
    """``NEWOBJ``: ``subprocess.Popen.__new__`` and its state by ``BUILD``."""
    return b"\x80\x02csubprocess\nPopen\n" + _text(_command(canary)) + b"\x85\x81."


def newobj_ex(canary: Path) -> bytes:
    """``NEWOBJ_EX`` with keywords."""
    keywords = b"}" + _text("shell") + b"\x88s"
    return b"\x80\x04csubprocess\nPopen\n" + _text(_command(canary)) + b"\x85" + keywords + b"\x92."


def build(canary: Path) -> bytes:
    """``BUILD`` calls ``__setstate__``, which the pickle has set to ``os.system``."""
    state = b"}" + _text("__setstate__") + b"cos\nsystem\ns"
    return b"\x80\x02cargparse\nNamespace\n)\x81" + state + b"b" + _text(_command(canary)) + b"b."


def extension(canary: Path) -> bytes:
    """``EXT1``, ``EXT2`` and ``EXT4``: names by number from the registry of `copyreg`."""
    return b"\x80\x02\x82\x01\x83\x01\x00\x84\x01\x00\x00\x00" + _text(_command(canary)) + b"\x85R."


def persistent(canary: Path) -> bytes:
    """``PERSID``: a persistent id as text."""
    return b"P" + _command(canary).encode() + b"\n."


def evaluated(canary: Path) -> bytes:
    """``builtins.eval`` of an import."""
    return b"\x80\x02cbuiltins\neval\n" + _text(f"__import__('os').system('touch {canary}')") + b"\x85R."


def executed(canary: Path) -> bytes:
    """``builtins.exec`` of statements."""
    return b"\x80\x02cbuiltins\nexec\n" + _text(f"open({str(canary)!r}, 'w').close()") + b"\x85R."


def attributes(canary: Path) -> bytes:
    """``getattr`` walks from a harmless module to a harmful one."""
    walk = b"cbuiltins\ngetattr\ncpathlib\nos\n" + _text("system") + b"\x86R"
    return b"\x80\x02" + walk + _text(_command(canary)) + b"\x85R."


def dotted(canary: Path) -> bytes:
    """A dotted name, which protocol 4 follows through attributes."""
    return b"\x80\x04" + _text("pathlib") + _text("os.system") + b"\x93" + _text(_command(canary)) + b"\x85R."


def marshalled(canary: Path) -> bytes:
    """A code object of `marshal`, as cloudpickle and dill send functions."""
    code = marshal.dumps(compile(f"open({str(canary)!r}, 'w').close()", "canary", "exec"))
    loads = b"cmarshal\nloads\nB" + struct.pack("<I", len(code)) + code + b"\x85R"
    return b"\x80\x03ctypes\nFunctionType\n" + loads + b"}\x86R)R."


def allowed_first(canary: Path) -> bytes:
    """A call that is allowed, and behind it one that is not."""
    return b"\x80\x02ccollections\nOrderedDict\n)R0" + reduce(canary)[2:]


def disguised(canary: Path) -> bytes:
    """``torch`` re-exports what is harmful: a list of forbidden modules would not see it."""
    return b"\x80\x02ctorch.serialization\nos.system\n" + _text(_command(canary)) + b"\x85R."


def nested(canary: Path) -> bytes:
    """``torch.load`` of a pickle inside of the pickle."""
    inner = payload(canary)
    return b"\x80\x03cpickle\nloads\nB" + struct.pack("<I", len(inner)) + inner + b"\x85R."


def after_stop(canary: Path) -> bytes:
    """A harmless pickle, and behind its end another one, as the legacy format of `torch.save` has."""
    return pickle.dumps({"a": 1}, 2) + payload(canary)


def iterated(canary: Path) -> bytes:
    """Nothing is called until the list is consumed: ``map(os.system, [...])``."""
    call = b"cbuiltins\nmap\ncos\nsystem\n](" + _text(_command(canary)) + b"e\x86R"
    return b"\x80\x02cbuiltins\nlist\n" + call + b"\x85R."


OPCODES: dict[str, Code] = {
    code.__name__: code
    for code in (
        reduce,
        stack_global,
        inst,
        obj,
        newobj,
        newobj_ex,
        build,
        extension,
        persistent,
        evaluated,
        executed,
        attributes,
        dotted,
        marshalled,
        allowed_first,
        disguised,
        nested,
        after_stop,
        iterated,
    )
}

#: Nothing is called: they fill memory, or the stack of who reads them by recursion.
BOMBS: dict[str, bytes] = {
    "memo-index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "memo-many": b"\x80\x04N" + b"\x94" * 600_000 + b".",
    "deep-tuples": b"\x80\x02N" + b"\x85" * 500_000 + b".",
    "deep-lists": b"\x80\x02" + b"](" * 200_000 + b"e" * 200_000 + b".",
    "deep-marks": b"\x80\x02" + b"(" * 500_000 + b".",
    "billion-laughs": b"\x80\x02]q\x00"
    + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1) for i in range(60))
    + b".",
    "long-claim": b"\x80\x02X\xff\xff\xff\xff" + b"a" * 64 + b".",
    "huge-text-claim": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f" + b"a" * 64 + b".",
    "huge-bytearray-claim": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f" + b"a" * 64 + b".",
    "frame-claim": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "huge-long": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 64 + b".",
    "long-of-digits": b"L" + b"9" * 200_000 + b"L\n.",
    "in-itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
}


def of_protocol(number: int) -> Code:
    """A payload as `pickle.dumps` writes it in a protocol."""
    return lambda canary: pickle.dumps(Payload(canary), number)

"""Shape expressions of a ``.pt2``: a small grammar, so that nothing of the file is ever evaluated as Python.

PyTorch reads ``expr_str`` with `sympy.sympify`, which evaluates Python. Here it is parsed by hand::

    comparison := sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)?
    sum        := product (("+" | "-") product)*
    product    := unary (("*" | "//" | "%") unary)*
    unary      := "-" unary | power
    power      := atom ("**" unary)?
    atom       := integer | symbol | "(" comparison ")" | call
    call       := "Symbol" "(" "'" symbol "'" ("," assumption "=" ("True" | "False"))* ")"
                | "Integer" "(" "-"? integer ")" | function "(" comparison ("," comparison)* ")"

with `FUNCTIONS` for the functions, both in PyTorch's spelling (``FloorDiv``) and sympy's (``Mul``).
"""

import keyword
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final, NoReturn

from worker.engine.errors import UnsafeFile

MAX_LENGTH: Final = 4096
MAX_DEPTH: Final = 40
MAX_TERMS: Final = 200
_LARGEST: Final = 2**63

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d{1,19})|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|'(?P<quoted>[A-Za-z_][A-Za-z0-9_]*)'"
    r"|(?P<sign><=|>=|==|!=|//|\*\*|[-+*%<>(),=]))",
    re.ASCII,  # no digits of other scripts
)
_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ASSUMPTIONS: Final = frozenset(
    ("positive", "negative", "nonnegative", "nonpositive", "integer", "real", "zero", "nonzero", "commutative")
)
_COMPARISONS: Final = {"<": "Lt", "<=": "Le", ">": "Gt", ">=": "Ge", "==": "Eq", "!=": "Ne"}
_SUMS: Final = {"+": "Add", "-": "Sub"}
_PRODUCTS: Final = {"*": "Mul", "//": "FloorDiv", "%": "Mod"}


def _power(base: int, exponent: int) -> int:
    if not 0 <= exponent <= 8:
        raise OverflowError("exponent out of range")
    return int(base**exponent)


def _chain(function: Callable[[int, int], int]) -> Callable[..., int]:
    return lambda *values: reduce(function, values)


#: Name -> (number of arguments or 0 for one or more, meaning). Comparisons give 0 or 1.
FUNCTIONS: Final[Mapping[str, tuple[int, Callable[..., int]]]] = {
    "Add": (0, _chain(operator.add)),
    "Sub": (2, operator.sub),
    "Mul": (0, _chain(operator.mul)),
    "Pow": (2, _power),
    "Max": (0, _chain(max)),
    "Min": (0, _chain(min)),
    **dict.fromkeys(("FloorDiv", "CleanDiv", "IntTrueDiv", "CeilToInt"), (2, operator.floordiv)),
    **dict.fromkeys(("Mod", "PythonMod"), (2, operator.mod)),
    **dict.fromkeys(("Eq", "Equality"), (2, operator.eq)),
    **dict.fromkeys(("Ne", "Unequality"), (2, operator.ne)),
    **dict.fromkeys(("Lt", "StrictLessThan"), (2, operator.lt)),
    **dict.fromkeys(("Le", "LessThan"), (2, operator.le)),
    **dict.fromkeys(("Gt", "StrictGreaterThan"), (2, operator.gt)),
    **dict.fromkeys(("Ge", "GreaterThan"), (2, operator.ge)),
}
_INFIX: Final = {
    "Add": "+",
    "Sub": "-",
    "Mul": "*",
    "FloorDiv": "//",
    "Mod": "%",
    "Pow": "**",
    **{name: sign for sign, name in _COMPARISONS.items()},
}


@dataclass(frozen=True)
class Number:
    """An integer."""

    value: int


@dataclass(frozen=True)
class Symbol:
    """A symbolic dimension."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A function of `FUNCTIONS` and its arguments."""

    function: str
    arguments: tuple["Expression", ...]


Expression = Number | Symbol | Apply


def parse(text: str) -> Expression:
    """Read one expression.

    Raises:
        UnsafeFile: anything that the grammar does not know.
    """
    if len(text) > MAX_LENGTH:
        _refuse(text[:60] + "...")
    return _Parser(text).whole()


def evaluate(expression: Expression, values: Mapping[str, int]) -> int:
    """The number behind an expression.

    Raises:
        ValueError: a symbol without a value, a division by zero, or a number beyond 64 bits.
    """
    match expression:
        case Number(value):
            return value
        case Symbol(name):
            if name not in values:
                raise ValueError(f"no value for {name}")
            return values[name]
        case Apply(function, arguments):
            try:
                result = int(FUNCTIONS[function][1](*(evaluate(a, values) for a in arguments)))
            except (ZeroDivisionError, OverflowError) as error:
                raise ValueError(str(error)) from error
            if abs(result) > _LARGEST:
                raise ValueError("a size beyond 64 bits")
            return result


def render(expression: Expression) -> str:
    """The expression in infix form, fully bracketed inside; `parse` reads it back as the same value."""
    match expression:
        case Number(value):
            return str(value) if value >= 0 else f"(-{-value})"
        case Symbol(name):
            return name
        case Apply(function, arguments):
            inner = [render(argument) for argument in arguments]
            if function not in _INFIX or len(inner) < 2:
                return f"{function}({', '.join(inner)})"
            parts = [
                f"({text})" if isinstance(argument, Apply) and argument.function in _INFIX else text
                for text, argument in zip(inner, arguments, strict=True)
            ]
            return _INFIX[function].join(parts)


def _refuse(text: str) -> NoReturn:
    raise UnsafeFile(
        f"A shape in the file is written as {text[:120]!r}, which is not a plain size expression. Such text would be "
        "run as Python by PyTorch when it loads the file, so it is refused. Export the model again with an "
        "unmodified torch.export.save()."
    )


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                _refuse(self.text)
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            position = match.end()
        self.at = 0
        self.depth = 0
        self.terms = 0

    def whole(self) -> Expression:
        expression = self.comparison()
        if self.at != len(self.tokens):
            _refuse(self.text)
        return expression

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *signs: str) -> str | None:
        kind, value = self.peek()
        if kind != "sign" or value not in signs:
            return None
        self.at += 1
        return value

    def expect(self, kind: str, value: str | None = None) -> str:
        found, text = self.peek()
        if found != kind or (value is not None and text != value):
            _refuse(self.text)
        self.at += 1
        return text

    def comparison(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            _refuse(self.text)
        left = self.chain(lambda: self.chain(self.unary, _PRODUCTS), _SUMS)
        sign = self.take(*_COMPARISONS)
        if sign:
            right = self.chain(lambda: self.chain(self.unary, _PRODUCTS), _SUMS)
            left = Apply(_COMPARISONS[sign], (left, right))
        self.depth -= 1
        return left

    def chain(self, part: Callable[[], Expression], signs: Mapping[str, str]) -> Expression:
        left = part()
        while sign := self.take(*signs):
            self.terms += 1
            if self.terms > MAX_TERMS:
                _refuse(self.text)
            left = Apply(signs[sign], (left, part()))
        return left

    def unary(self) -> Expression:
        minus = 0
        while self.take("-"):
            minus += 1
        base = self.atom()
        if self.take("**"):
            base = Apply("Pow", (base, self.atom()))
        if minus % 2 == 0:
            return base
        return Number(-base.value) if isinstance(base, Number) else Apply("Mul", (Number(-1), base))

    def atom(self) -> Expression:
        if self.take("("):
            inner = self.comparison()
            self.expect("sign", ")")
            return inner
        kind, text = self.peek()
        if kind == "number":
            self.at += 1
            return Number(int(text))
        name = self.expect("name")
        if self.take("("):
            expression = self.call(name)
            self.expect("sign", ")")
            return expression
        return self.named(name)

    def call(self, name: str) -> Expression:
        if name == "Symbol":
            return self.symbol()
        if name == "Integer":
            sign = -1 if self.take("-") else 1
            return Number(sign * int(self.expect("number")))
        if name not in FUNCTIONS:
            _refuse(self.text)
        arguments = [self.comparison()]
        while self.take(","):
            arguments.append(self.comparison())
        wanted = FUNCTIONS[name][0]
        if len(arguments) > MAX_DEPTH or (wanted and len(arguments) != wanted):
            _refuse(self.text)
        return Apply(name, tuple(arguments))

    def symbol(self) -> Expression:
        name = self.expect("quoted")
        while self.take(","):
            assumption = self.expect("name")
            self.expect("sign", "=")
            if assumption not in _ASSUMPTIONS or self.expect("name") not in ("True", "False"):
                _refuse(self.text)
        return self.named(name)

    def named(self, name: str) -> Symbol:
        if not _SYMBOL.fullmatch(name) or keyword.iskeyword(name) or name in (*FUNCTIONS, "Symbol", "Integer"):
            _refuse(self.text)
        return Symbol(name)

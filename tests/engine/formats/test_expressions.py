import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.errors import UnsafeFile
from worker.engine.formats.expressions import Apply, Number, Symbol, evaluate, parse, render

leaves = st.one_of(
    st.integers(-(10**6), 10**6).map(Number), st.from_regex(r"[su][0-9]{1,3}", fullmatch=True).map(Symbol)
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda f, a, b: Apply(f, (a, b)), st.sampled_from(["Add", "Sub", "Mul", "FloorDiv", "Mod"]), inner, inner
        ),
        st.builds(
            lambda f, a: Apply(f, tuple(a)), st.sampled_from(["Max", "Min"]), st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=12,
)
values = {f"{prefix}{number}": number % 7 + 1 for prefix in "su" for number in range(1000)}
values |= {f"{prefix}{number:0{width}}": 3 for prefix in "su" for width in (2, 3) for number in range(100)}


def outcome(expression):
    try:
        return evaluate(expression, values)
    except ValueError as error:
        return str(error)


@given(trees)
def test_what_is_rendered_is_read_back_as_the_same_value(tree):
    assert outcome(parse(render(tree))) == outcome(tree)


@given(trees)
def test_rendering_is_stable(tree):
    once = render(parse(render(tree)))
    assert render(parse(once)) == once


def spelled(tree):
    """As sympy.srepr writes it."""
    match tree:
        case Number(value):
            return f"Integer({value})"
        case Symbol(name):
            return f"Symbol('{name}', positive=True, integer=True)"
        case Apply(function, arguments):
            return f"{function}({', '.join(map(spelled, arguments))})"


@given(trees)
def test_the_spelling_of_sympy_means_the_same(tree):
    assert outcome(parse(spelled(tree))) == outcome(tree)


@given(st.text(max_size=60))
def test_any_text_is_either_an_expression_or_refused(text):
    try:
        parse(text)
    except UnsafeFile as error:
        assert error.code == "unsafe_format"


@given(st.text(alphabet="s0 12+-*/%()<>=,'SymbolInteger", max_size=40))
def test_what_is_accepted_is_plain_arithmetic(text):
    try:
        tree = parse(text)
    except UnsafeFile:
        return
    for node in ast.walk(ast.parse(render(tree), mode="eval")):
        assert not isinstance(node, (ast.Attribute, ast.Lambda, ast.Subscript, ast.Starred))
        if isinstance(node, ast.Call):
            assert node.func.id in {"Max", "Min", "Add", "Sub", "Mul", "FloorDiv", "Mod", "Pow"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Symbol('s77', positive=True, integer=True)", 77),
        ("Mul(Integer(4), Symbol('s27', positive=True, integer=True))", 108),
        ("2*s3 + 1", 7),
        ("(s9 - 1)//2", 4),
        ("-s3 % 5", 2),
        ("s3**2", 9),
        ("Max(1, Min(s9, 4))", 4),
        ("s3 <= 4", 1),
        ("Eq(s3, 4)", 0),
        ("-3", -3),
    ],
)
def test_values(text, value):
    assert evaluate(parse(text), {f"s{i}": i for i in range(100)}) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "__import__('os').system('true')",
        "Symbol('s0').__class__",
        "(lambda: 1)()",
        "[].append(1)",
        "s0 if s1 else s2",
        "eval('1')",
        "exec(s0)",
        "Symbol(s0)",
        "Symbol('s0', positive=True, integer=os)",
        "Symbol('s0; import os')",
        "1.5",
        "s0 +",
        "(" * 500 + "s0" + ")" * 500,
        "+".join(["s0"] * 1000),
        "1" * 30,
        "s0 = 1",
        "Function('f')(s0)",
        "s0 s1",
        '"s0"',
        "Integer(s0)",
        "FloorDiv(1)",
        "s0\n__import__",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(UnsafeFile):
        parse(text)


@pytest.mark.parametrize("text", ["s0 // 0", "s1", "2**9", "9999999999*9999999999"])
def test_values_that_do_not_exist(text):
    with pytest.raises(ValueError, match=r"."):
        evaluate(parse(text), {"s0": 1})

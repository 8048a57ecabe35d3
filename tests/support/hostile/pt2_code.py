"""Python in the JSON of a ``.pt2``: shape expressions, names, operators."""

import json
from typing import Any

from tests.support.hostile import good
from tests.support.hostile.case import ACCEPTED, Group, Make
from tests.support.hostile.pt2_parts import CONFIG, MODEL, edited, holders

CODE = Group("code-in-pt2")
SYSTEM = "__import__('os').system('touch {canary}')"
UNSAFE = "unsafe_format"
SCHEMA = "schema_invalid"
GRAPH = "graph_invalid"
OPERATOR = "unsupported_operator"
INCOMPLETE = "file_incomplete"
RUNS = "model_does_not_run"


def expression(text: str) -> Make:
    """This text in place of every shape expression."""

    def change(document: Any, canary: str) -> None:
        for holder in holders(document, "expr_str"):
            holder["expr_str"] = text.replace("{canary}", canary)

    return edited(MODEL, change)


def renamed(key: str, text: str) -> Make:
    """This text in place of every value of a key."""

    def change(document: Any, canary: str) -> None:
        for holder in holders(document, key):
            if isinstance(holder[key], str):
                holder[key] = text.replace("{canary}", canary)

    return edited(MODEL, change)


def everywhere(old: str, new: str) -> Make:
    """The name of a value replaced wherever it stands, in the JSON of the graph and of the weights."""

    def make(canary: object) -> bytes:
        content = good.entries_of(good.pt2(), top=True)
        evil = json.dumps(new.replace("{canary}", str(canary))).encode()
        for entry in (MODEL, CONFIG):
            content[entry] = content[entry].replace(json.dumps(old).encode(), evil)
        return good.zip_of(content, top="m/")

    return make


_EXPRESSIONS = {
    "call": SYSTEM,
    "conditional": "s0 if " + SYSTEM + " else 1",
    "lambda": "(lambda: " + SYSTEM + ")()",
    "exec": "exec(\"open('{canary}', 'w')\")",
    "attribute": "().__class__.__mro__[1].__subclasses__()",
    "walrus": "(x := 1)",
    "f-string": 'f"{' + SYSTEM + '}"',
    "comprehension": "[" + SYSTEM + " for x in [1]][0]",
    "index": "[1, 2][0]",
    "keyword": "Symbol('s0', positive=" + SYSTEM + ")",
    "symbol-name": "Symbol(\"'+" + SYSTEM + "+'\")",
    "star": "Max(*[1, 2])",
    "statement": "1; " + SYSTEM,
    "newline": "1\n" + SYSTEM,
    "comment": "s0 # " + SYSTEM,
    "unicode-name": "ｅｘｅｃ('1')",
    "unicode-digits": "٣ + s0",
    "sympify": "S('" + SYSTEM.replace("'", '"') + "')",
    "function": "Function('f')(1)",
    "latex": "\\frac{1}{2}",
    "float": "1.5",
    "infinity": "oo",
    "power-tower": "9**9**9**9**9",
    "power-huge": "2**99999999",
    "digits": "9" * 4000,
    "digits-of-64-bits": "18446744073709551616",
    "deep-brackets": "(" * 3000,
    "deep-closed": "(" * 500 + "s0" + ")" * 500,
    "deep-minus": "-" * 3000 + "1",
    "many-terms": "+".join(["s0"] * 1500),
    "megabytes": "s0+" * 1_000_000 + "1",
    "empty": "",
    "blank": "   ",
    "nul": "s0\0",
    "half": "s0 +",
    "division-by-zero": "s0 // 0",
    "modulo-zero": "s0 % 0",
    "surrogate": "\ud800",
    "nested-calls": "Max(" * 200 + "1" + ")" * 200,
}
#: Odd, and numbers all the same: nothing but a symbol, a sign or a number that nobody computes.
_PLAIN = ("infinity", "power-huge", "deep-minus", "division-by-zero", "modulo-zero")
for _name, _text in _EXPRESSIONS.items():
    CODE.model(f"expression-{_name}", expression(_text), *((ACCEPTED,) if _name in _PLAIN else (UNSAFE, SCHEMA, GRAPH)))
_INJECTION = "x): import os; os.system('touch {canary}')  #"
for _old in ("input", "layer.weight", "linear", "p_layer_weight", "x"):
    CODE.model(f"name-of-{_old}", everywhere(_old, _INJECTION), ACCEPTED, GRAPH, SCHEMA, INCOMPLETE, RUNS, OPERATOR)
for _key in (
    "target",
    "name",
    "parameter_name",
    "stack_trace",
    "nn_module_stack",
    "source_fn_stack",
    "torch_fn",
    "fqn",
    "as_string",
    "as_none",
):
    CODE.model(f"text-in-{_key}", renamed(_key, _INJECTION), ACCEPTED, GRAPH, SCHEMA, INCOMPLETE, OPERATOR, RUNS)
CODE.model(
    "guards", edited(MODEL, lambda d, canary: d.update(guards_code=[SYSTEM.replace("{canary}", canary)])), ACCEPTED
)
_TARGETS = (
    "os.system",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.ops.load_library",
    "torch.classes.load_library",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.relu.__globals__",
    "torch.ops.aten.__class__",
    "_operator.attrgetter",
    "_operator.methodcaller",
    "math.__loader__.load_module",
    "torch.ops.higher_order.map_impl",
    "torch.ops.aten.save.default",
    "#torch.export",
    "torch.ops." + "aten." * 5000,
    "",
    "..",
    "torch.ops.aten.linear.default\0",
)
for _index, _target in enumerate(_TARGETS):
    CODE.model(f"target-{_index}-{_target[:40]}", renamed("target", _target), OPERATOR, GRAPH, SCHEMA)

"""Mutants: what a module could be by mistake, one small change each.

The changes are mutmut's, and a few more. mutmut's own runner leaves out what is decorated, so every method of our dataclasses,
and what stands outside of functions, so every pattern and limit: here they are made of the whole module.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["Mutant", "mutants_of"]

# Not in the project's lock, so unknown to mypy: `mutmut` brings both.
cst: Any = import_module("libcst")
_positions: Any = import_module("libcst.metadata")
_mutmut: Any = import_module("mutmut.mutation.mutators")

_PROSE = 2  # spaces from which on a text is a sentence for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A module with one change. `name` says where and what: the function, the lines as they are, and as they would be."""

    name: str
    line: int
    source: str


def mutants_of(source: str) -> list[Mutant]:
    """Return a module's mutants, no two of which are alike; what is no Python is left out."""
    wrapper = cst.MetadataWrapper(cst.parse_module(source))
    spans, text = wrapper.resolve(_positions.ByteSpanPositionProvider), source.encode()
    made = {_meaning(source): Mutant(name="", line=0, source=source)}
    for where, old, new in _changes(wrapper.module, ()):
        start = spans[old].start
        mutant = _replaced(text, start, start + spans[old].length, new, ".".join(where) or "module")
        with suppress(SyntaxError):
            made.setdefault(_meaning(mutant.source), mutant)
    return list(made.values())[1:]


def _meaning(source: str) -> str:
    return ast.dump(ast.parse(source))


def _changes(node: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield what may stand in the place of what: in which function, the node as it is, and another one."""
    if _is_left_alone(node):
        return
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        where = (*where, node.name.value)
    for kind, operator in _OPERATORS:
        if isinstance(node, kind):
            yield from ((where, node, new) for new in operator(node))
    if isinstance(node, cst.If | cst.While | cst.IfExp | cst.CompIf):
        yield where, node.test, _opposite(node.test)
    for child in node.children:
        yield from _changes(child, where)


def _replaced(text: bytes, start: int, end: int, new: Any, where: str) -> Mutant:
    """Return the mutant with a node in the place of some bytes. Its name has no more lines than what is changed stands in."""
    first, last = text.rfind(b"\n", 0, start) + 1, text.index(b"\n", end)
    line = text[first:last]
    indented = "\n" + " " * (len(line) - len(line.lstrip()))
    written = cst.Module(body=()).code_for_node(new).strip().replace("\n", indented)
    changed = text[first:start] + written.encode() + text[end:last]
    return Mutant(
        name=f"{where}: {_squeezed(line)} → {_squeezed(changed)}",
        line=text.count(b"\n", 0, start) + 1,
        source=(text[:first] + changed + text[last:]).decode(),
    )


def _is_left_alone(node: Any) -> bool:
    """Whether what a node says is no behaviour: types, what a module exports, and texts for people, whose meaning tests look for.

    That dataclasses are frozen, slotted and keyword-only is held by tests/unit/test_engine_values.py for all of them.
    """
    match node:
        case cst.Annotation() | cst.Import() | cst.ImportFrom():
            return True
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return True
        case cst.Decorator(decorator=cst.Call(func=cst.Name(value="dataclass"))):
            return True
    return _is_prose(node)


def _is_prose(node: Any) -> bool:
    if isinstance(node, cst.ConcatenatedString):
        return _is_prose(node.left)
    return isinstance(node, cst.SimpleString) and (
        node.raw_value.count(" ") >= _PROSE or node.quote in ('"""', "'''")
    )


def _squeezed(lines: bytes) -> str:
    return " ".join(lines.decode().split())


# What mutmut does otherwise, or not at all


def _text(node: Any) -> Iterator[Any]:
    """A text becomes another one: once is enough, where mutmut does it three times."""
    yield from list(_mutmut.operator_string(node))[:1]


def _fewer_arguments(node: Any) -> Iterator[Any]:
    """A call loses one of its arguments, or has None instead; but not one that is a text for people."""
    for changed in _mutmut.operator_arg_removal(node):
        kept = {id(arg) for arg in changed.args}
        if not any(_is_prose(arg.value) for arg in node.args if id(arg) not in kept):
            yield changed


def _opposite(test: Any) -> Any:
    """`if x` becomes `if not (x)`, in expressions and comprehensions too."""
    inside = test.with_changes(lpar=[*test.lpar, cst.LeftParen()], rpar=[cst.RightParen(), *test.rpar])
    return cst.UnaryOperation(operator=cst.Not(), expression=inside)


def _nothing(node: Any) -> Iterator[Any]:
    """`return x` becomes `return None`."""
    if node.value is not None and not (isinstance(node.value, cst.Name) and node.value.value == "None"):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


def _undone(node: Any) -> Iterator[Any]:
    """A call, raise or other statement for its effect becomes `pass`; not a docstring, nor what makes a generator one."""
    if not (isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString | cst.Ellipsis | cst.Yield)):
        yield cst.Pass(semicolon=node.semicolon)


def _without_one(node: Any) -> Iterator[Any]:
    """A collection written out loses one of its members."""
    if len(node.elements) > 1:
        for at in range(len(node.elements)):
            yield node.with_changes(elements=[*node.elements[:at], *node.elements[at + 1 :]])


_OTHERWISE = {_mutmut.operator_string: _text, _mutmut.operator_arg_removal: _fewer_arguments}
_OPERATORS: list[tuple[Any, Callable[[Any], Iterable[Any]]]] = [
    *((kind, _OTHERWISE.get(each, each)) for kind, each in _mutmut.mutation_operators),
    (cst.Return, _nothing),
    ((cst.Expr, cst.Raise), _undone),
    ((cst.Set, cst.Tuple, cst.List), _without_one),
]

"""Small mistakes that a module can be given: mutmut's operators, and some that it lacks.

Left out is what no test can or should tell apart: text, type annotations, imports, decorators.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

EITHER_WAY = {"max", "min"}
"""Functions that take their arguments in any order."""
UNTOUCHED = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)
FOR_TYPES = {"Callable", "Literal", "NDArray", "dict", "list", "tuple"}
"""What a module writes before brackets at its top is a name for a type."""
TAKEN_AS_THEY_ARE = {"cast", "isinstance", "len"}
"""Calls for the type checker's sake, or whose argument cannot be another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One mistake.

    Attributes:
        file: the module, from the root of the tree.
        lines: first and last line of the statement that is changed.
        function: first and last line of the function around it; None where it runs at import.
        name: what the module's own top level calls the place, to find who uses it.
    """

    file: str
    lines: tuple[int, int]
    function: tuple[int, int] | None
    name: str
    module: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode

    def code(self) -> str:
        """The module with the mistake."""
        return self.module.deep_replace(self.old, self.new).code  # type: ignore[union-attr]

    def change(self) -> list[str]:
        """The lines taken out and put in, after ``-`` and ``+``, without their indentation."""
        pair = (self.module.code.splitlines(), self.code().splitlines())
        lines = list(difflib.unified_diff(*pair, lineterm="", n=0))[2:]
        return [line[0] + line[1:].strip() for line in lines if line[0] in "-+"]


def mutants(file: str, code: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    wrapper = MetadataWrapper(cst.parse_module(code))
    found = _Finder(file, wrapper.module)
    wrapper.visit(found)
    return found.mutants


def is_text(node: cst.CSTNode) -> bool:
    """Whether a node is words for people: what has a blank in it or is put together."""
    if isinstance(node, cst.SimpleString):
        return " " in node.value or node.quote in ('"""', "'''")
    return isinstance(node, cst.FormattedString | cst.ConcatenatedString)


def _drop(node: cst.Expr | cst.Raise) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call | cst.Await):
        yield cst.Pass()


def _negate(node: cst.If | cst.CompIf) -> Iterator[cst.CSTNode]:
    inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), inner))


def _return_nothing(node: cst.Return) -> Iterator[cst.CSTNode]:
    if node.value is not None:
        yield node.with_changes(value=cst.Name("None"))


def _swap(node: cst.Call) -> Iterator[cst.CSTNode]:
    if isinstance(node.func, cst.Name) and node.func.value in EITHER_WAY:
        return
    pair, rest = node.args[:2], node.args[2:]
    if len(pair) == 2 and not any(one.keyword or one.star or is_text(one.value) for one in pair):
        first, second = pair
        changed = (first.with_changes(value=second.value), second.with_changes(value=first.value))
        yield node.with_changes(args=(*changed, *rest))


def _misspell(node: cst.SimpleString) -> Iterable[cst.CSTNode]:
    return list(mutators.operator_string(node))[:1]


OPERATORS: list[tuple[Any, Any]] = [
    *(pair for pair in mutators.mutation_operators if pair[1] is not mutators.operator_string),
    (cst.Expr, _drop),
    (cst.Raise, _drop),
    (cst.If, _negate),
    (cst.CompIf, _negate),
    (cst.Return, _return_nothing),
    (cst.Call, _swap),
    (cst.SimpleString, _misspell),
]


class _Finder(cst.CSTVisitor):
    """Walks a module and collects its mutants."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, file: str, module: cst.Module) -> None:
        super().__init__()
        self.mutants: list[Mutant] = []
        self._file, self._module = file, module
        self._path: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, UNTOUCHED) or is_text(node) or self._is_for_types(node):
            return False
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                self.mutants += [
                    self._mutant(node, new)
                    for new in operator(node)
                    if not (_rewords(node, new) or node.deep_equals(new))
                ]
        self._path.append(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._path and self._path[-1] is original_node:
            self._path.pop()

    def _is_for_types(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Call):
            return isinstance(node.func, cst.Name) and node.func.value in TAKEN_AS_THEY_ARE
        if isinstance(node, cst.If) and isinstance(node.test, cst.Name):
            return node.test.value == "TYPE_CHECKING"
        if not isinstance(node, cst.Assign) or len(self._path) != 2:
            return False
        target, value = node.targets[0].target, node.value
        if isinstance(value, cst.Subscript) and isinstance(value.value, cst.Name):
            return value.value.value in FOR_TYPES
        return isinstance(target, cst.Name) and target.value == "__all__"

    def _mutant(self, node: cst.CSTNode, new: cst.CSTNode) -> Mutant:
        path = [*self._path, node]
        statement = next((one for one in path if isinstance(one, cst.SimpleStatementLine)), None)
        functions = [one for one in path if isinstance(one, cst.FunctionDef)]
        first, last = self._span(statement or node)
        return Mutant(
            file=self._file,
            lines=(first, last if statement else first),
            function=self._span(functions[0]) if functions else None,
            name=_name(path[1]),
            module=self._module,
            old=node,
            new=new,
        )

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        where = self.get_metadata(PositionProvider, node)
        assert isinstance(where, CodeRange)
        return where.start.line, where.end.line


def _rewords(node: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Whether a call loses an argument that is text."""
    if not isinstance(node, cst.Call) or not isinstance(new, cst.Call):
        return False
    kept = [argument.value for argument in new.args]
    return any(is_text(one.value) and one.value not in kept for one in node.args)


def _name(node: cst.CSTNode) -> str:
    """What a statement at the top of a module defines."""
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        return node.name.value
    small = node.body[0] if isinstance(node, cst.SimpleStatementLine) else None
    if isinstance(small, cst.Assign):
        target = small.targets[0].target
    else:
        target = getattr(small, "target", None)
    return target.value if isinstance(target, cst.Name) else ""

"""Holding an expression against the shape of the input before it is ever asked.

CEL forgives an error beside ``&&`` and ``||`` where the other side decides; a misspelt name could so pass for
years. Hence every name and field must be known when a policy is loaded, and so must every function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

import lark

MAX_DEPTH: Final = 400
"""Levels of the tree; brackets add about fifteen each."""
MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
"""What binds a name within it; of CEL's own, not those that the library adds."""
FUNCTIONS: Final = frozenset({"size", "has", "int", "uint", "double", "string", "bool", "type", "matches"})
METHODS: Final = frozenset({"size", "contains", "startsWith", "endsWith", "matches"})

_LITERALS: Final = frozenset({"list_lit", "map_lit"})
_Shape = Any
_UNKNOWN: Final = object()
"""The shape of what is computed; anything may be asked of it, and errs when it is wrong."""


class CheckFailed(Exception):
    """An expression asks for what is not there; the text says what."""


def check(tree: lark.Tree[Any], shape: Mapping[str, _Shape]) -> frozenset[str]:
    """Return the paths of the input that an expression reads ("counts.critical").

    Raises ``CheckFailed``.
    """
    if _depth(tree) > MAX_DEPTH:
        raise CheckFailed("is nested too deeply; split it into rules")
    found: set[str] = set()
    _Walk(found).shape_of(tree, {name: (name, one) for name, one in shape.items()})
    return frozenset(found)


def _depth(tree: lark.Tree[Any]) -> int:
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(child, depth + 1) for child in node.children if isinstance(child, lark.Tree)]
    return deepest


_Scope = Mapping[str, tuple[str, _Shape]]
"""Of each name: the path in the input that it stands for, and the shape of that."""


class _Walk:
    """A walk over one expression, noting what it reads."""

    def __init__(self, found: set[str]) -> None:
        self._found = found

    def shape_of(self, tree: lark.Tree[Any], scope: _Scope) -> _Shape:
        """Return the shape of a part's value, and note what it reads."""
        path, shape = self._followed(tree, scope)
        if path:
            self._found.add(path)
        return shape

    def _followed(self, tree: lark.Tree[Any], scope: _Scope) -> tuple[str, _Shape]:
        """Return the path of the input that a part stands for (empty if for none), and its shape."""
        node = _core(tree)
        if node.data == "ident":
            return self._name(str(node.children[0]), scope)
        if node.data == "member_dot":
            return self._field(node, scope)
        if node.data == "member_dot_arg":
            return "", self._method(node, scope)
        if node.data == "member_index":
            return "", self._entry(node, scope)
        if node.data == "ident_arg":
            _known(str(node.children[0]), FUNCTIONS)
        elif node.data in ("dot_ident", "dot_ident_arg", "member_object"):
            raise CheckFailed("has a leading dot or a message, and neither is known here")
        self._children(node, scope)
        return "", _UNKNOWN

    def _children(self, node: lark.Tree[Any], scope: _Scope) -> None:
        for child in _trees(node):
            self.shape_of(child, scope)

    def _name(self, name: str, scope: _Scope) -> tuple[str, _Shape]:
        if name not in scope:
            raise CheckFailed(f"{name!r} is not known; {', '.join(sorted(scope))} are")
        return scope[name]

    def _field(self, node: lark.Tree[Any], scope: _Scope) -> tuple[str, _Shape]:
        path, shape = self._followed(node.children[0], scope)
        name = str(node.children[1])
        if shape is _UNKNOWN:
            return "", _UNKNOWN
        if not isinstance(shape, Mapping) or name not in shape:
            has = f"has {', '.join(sorted(shape))}" if isinstance(shape, Mapping) else "has no fields"
            raise CheckFailed(f"{path or 'the value'} has no field {name!r}; it {has}")
        return (f"{path}.{name}" if path else ""), shape[name]

    def _entry(self, node: lark.Tree[Any], scope: _Scope) -> _Shape:
        shape = self.shape_of(node.children[0], scope)
        self._children(lark.Tree("index", node.children[1:]), scope)
        return shape[0] if isinstance(shape, list) else _UNKNOWN

    def _method(self, node: lark.Tree[Any], scope: _Scope) -> _Shape:
        name = str(node.children[1])
        _known(name, MACROS | METHODS)
        shape = self.shape_of(node.children[0], scope)
        arguments = [child for part in _trees(node, 2) for child in _trees(part)]
        if name not in MACROS:
            for argument in arguments:
                self.shape_of(argument, scope)
            return _UNKNOWN
        return self._macro(name, shape, arguments, scope)

    def _macro(self, name: str, shape: _Shape, arguments: list[lark.Tree[Any]], scope: _Scope) -> _Shape:
        variable = _core(arguments[0]) if len(arguments) == 2 else None
        if variable is None or variable.data != "ident":
            raise CheckFailed(f"{name} wants a name and an expression, as in findings.{name}(f, f.in_force)")
        # What an entry has is read with the list: only its shape counts.
        entry = shape[0] if isinstance(shape, list) else _UNKNOWN
        self.shape_of(arguments[1], {**scope, str(variable.children[0]): ("", entry)})
        return shape if name == "filter" else _UNKNOWN


def _core(tree: lark.Tree[Any]) -> lark.Tree[Any]:
    """Return the part that a chain of parts with one child each leads to; a list of one is no such chain."""
    while len(tree.children) == 1 and isinstance(tree.children[0], lark.Tree) and tree.data not in _LITERALS:
        tree = tree.children[0]
    return tree


def _trees(node: lark.Tree[Any], start: int = 0) -> Iterator[lark.Tree[Any]]:
    return (child for child in node.children[start:] if isinstance(child, lark.Tree))


def _known(name: str, names: Set[str]) -> None:
    if name not in names:
        raise CheckFailed(f"{name!r} is no function that is known; {', '.join(sorted(names))} are")

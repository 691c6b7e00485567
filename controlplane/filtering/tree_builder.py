"""What the parser builds as it reduces each rule of ``filter.lark``."""

from __future__ import annotations

from collections.abc import Callable

from lark import Token, Transformer, v_args

from controlplane.filtering.errors import FilterError, quote
from controlplane.filtering.literals import read_quoted
from controlplane.filtering.tree import (
    And,
    Comparison,
    Everything,
    Filter,
    Literal,
    Not,
    Operator,
    Or,
    Search,
)

_KEYWORDS = frozenset({"AND", "OR", "NOT"})
_LOOKS_LIKE_KEYWORD = {"and": "AND", "&&": "AND", "or": "OR", "||": "OR", "not": "NOT"}

Path = tuple[Literal, ...]


@v_args(inline=True)
class TreeBuilder(Transformer[Token, Filter]):
    """Builds the tree from the bottom up, inside the parser: no recursion over what callers nest."""

    def start(self, tree: Filter | None = None) -> Filter:
        """Return the whole filter."""
        return Everything() if tree is None else tree

    def conjunction(self, *parts: Filter) -> Filter:
        """Return parts joined by AND, or by whitespace."""
        return parts[0] if len(parts) == 1 else And(parts)

    def disjunction(self, *parts: Filter) -> Filter:
        """Return parts joined by OR."""
        return parts[0] if len(parts) == 1 else Or(parts)

    def negation(self, part: Filter) -> Filter:
        """Return what NOT or a minus negates."""
        return Not(part)

    def path(self, *segments: Token) -> Path:
        """Return the segments of a field path, or of a word with dots."""
        return tuple(_literal(segment) for segment in segments)

    def value(self, token: Token) -> Filter:
        """Return a value; a leaf of what a comparison distributes over."""
        if str(token) in _KEYWORDS:
            raise FilterError(
                f'a value is missing before {token}; to compare with the word, write "{token}"',
                _position(token),
            )
        return Search(_literal(token))

    def comparison(self, path: Path, comparator: Token, value: Search) -> Filter:
        """Return one comparison."""
        return Comparison(path, Operator(comparator), value.literal, _position(comparator))

    def distribution(self, path: Path, comparator: Token, values: Filter) -> Filter:
        """Return ``field = (A OR B)`` as ``(field = A OR field = B)``.

        The values come as a tree with a ``Search`` for each. ``!=`` is true
        unless ``=`` is, so it negates the whole rather than each value.
        """
        operator, position = Operator(comparator), _position(comparator)
        if operator is Operator.NOT_EQUAL:
            return Not(_distribute(values, lambda value: Comparison(path, Operator.EQUAL, value, position)))
        return _distribute(values, lambda value: Comparison(path, operator, value, position))

    def search(self, path: Path) -> Filter:
        """Return a literal without a field."""
        first = path[0]
        if len(path) == 1:
            return Search(_not_a_keyword(first))
        if any(segment.quoted for segment in path):
            raise FilterError(
                "a path with a quoted part needs a comparison: add one, such as :* for «is present»",
                first.position,
            )
        return Search(_joined(path))


def _distribute(values: Filter, compare: Callable[[Literal], Comparison]) -> Filter:
    match values:
        case And(parts):
            return And(tuple(_distribute(part, compare) for part in parts))
        case Or(parts):
            return Or(tuple(_distribute(part, compare) for part in parts))
        case Not(part):
            return Not(_distribute(part, compare))
        case Search(literal):
            return compare(literal)
        case Comparison() | Everything():
            raise TypeError("the grammar allows only values in the parentheses after a comparator")


def _not_a_keyword(literal: Literal) -> Literal:
    if literal.quoted:
        return literal
    if literal.text in _KEYWORDS:
        raise FilterError(
            f"a term is missing before {literal.text}; NOT twice needs parentheses; "
            "to search for the word, quote it",
            literal.position,
        )
    keyword = _LOOKS_LIKE_KEYWORD.get(literal.text.lower())
    if keyword:
        raise FilterError(
            f"write {keyword} instead of {quote(literal.text)}; to search for the word, quote it",
            literal.position,
        )
    return literal


def _joined(path: Path) -> Literal:
    text = ".".join(segment.text for segment in path)
    wildcards = tuple(index for index, char in enumerate(text) if char == "*")
    return Literal(text, wildcards=wildcards, position=path[0].position)


def _literal(token: Token) -> Literal:
    text, position = str(token), _position(token)
    if token.type == "STRING":
        return read_quoted(text, position)
    return Literal(
        text, wildcards=tuple(index for index, char in enumerate(text) if char == "*"), position=position
    )


def _position(token: Token) -> int:
    return token.start_pos or 0

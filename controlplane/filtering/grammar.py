"""From the text of a filter to its tree: AIP-160, by a LALR(1) grammar.

The limits keep one filter from costing more than the listing that it narrows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NoReturn

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from controlplane.filtering.errors import FilterError, quote
from controlplane.filtering.syntax_errors import explain
from controlplane.filtering.tree import And, Comparison, Everything, Filter, Not, Or, Search
from controlplane.filtering.tree_builder import TreeBuilder

MAX_LENGTH = 4096
"""Characters; the contract's limit of the field, checked here too for callers that are not the wire."""

MAX_DEPTH = 32
"""Open parentheses: deeper than anyone writes, and no danger for code that walks the tree by recursion."""

MAX_COMPARISONS = 64
"""Comparisons and searched words: each may become a subquery, and SQLite joins at most 1,000 terms."""


def parse(text: str) -> Filter:
    """Return the tree of a filter; of a blank one, ``Everything``.

    Raises FilterError for text that is not a filter, or goes over a limit.
    """
    _check_characters(text)
    tree = _parse_tokens(text)
    _check_comparisons(tree)
    return tree


def _check_characters(text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise FilterError(
            f"the filter has {len(text)} characters, and {MAX_LENGTH} are allowed: shorten it", MAX_LENGTH
        )
    for position, char in enumerate(text):
        # No database column can hold NUL or half of a surrogate pair, so nothing could ever match.
        if (char < " " and char not in "\t\r\n") or char == "\x7f" or "\ud800" <= char <= "\udfff":
            raise FilterError(f"U+{ord(char):04X} cannot stand in a filter: remove it", position)


def _parse_tokens(text: str) -> Filter:
    open_at: list[int] = []
    parser = _lark().parse_interactive(text)
    try:
        for token in parser.iter_parse():
            _track_depth(token, open_at)
        result = parser.feed_token(Token("$END", ""))
    except (UnexpectedCharacters, UnexpectedToken) as error:
        accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call] # lark annotates it not
        raise explain(error, accepted, text, open_at) from None
    if not isinstance(result, And | Or | Not | Comparison | Search | Everything):
        raise TypeError(f"the grammar built {type(result).__name__}, which is no filter")
    return result


def _track_depth(token: Token, open_at: list[int]) -> None:
    if token.type == "LPAR":
        open_at.append(token.start_pos or 0)
        if len(open_at) > MAX_DEPTH:
            raise FilterError(
                f"more than {MAX_DEPTH} parentheses are open here: flatten the filter", open_at[-1]
            )
    elif token.type == "RPAR" and open_at:
        open_at.pop()


def _check_comparisons(tree: Filter) -> None:
    for count, position in enumerate(_leaf_positions(tree), start=1):
        if count > MAX_COMPARISONS:
            raise FilterError(
                f"this is comparison {count}, and {MAX_COMPARISONS} are allowed: split the request", position
            )


def _leaf_positions(tree: Filter) -> Iterator[int]:
    match tree:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _leaf_positions(part)
        case Not(part):
            yield from _leaf_positions(part)
        case Comparison():
            yield tree.value.position
        case Search(literal):
            yield literal.position


@cache
def _lark() -> Lark:
    """Build the parser once, when the first filter comes."""
    return Lark.open(
        "filter.lark",
        rel_to=__file__,
        parser="lalr",
        lexer="contextual",
        maybe_placeholders=False,
        transformer=TreeBuilder(),
        lexer_callbacks={"FUNCTION": _refuse_function},
    )


def _refuse_function(token: Token) -> NoReturn:
    raise FilterError(
        f"{quote(str(token) + '(')} calls a function, and there are none: compare a field with a value; "
        "before a group in parentheses, put a space",
        token.start_pos or 0,
    )

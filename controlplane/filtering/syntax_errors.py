"""What to tell the writer of a filter that the grammar does not accept."""

from __future__ import annotations

from collections.abc import Sequence, Set

from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from controlplane.filtering.errors import FilterError, quote

_OTHER_LANGUAGES = {
    "==": "write = once",
    "=~": "write = with a * at either end of the text for a pattern",
    "!~": "write != with a * at either end of the text for a pattern",
    "<>": "write !=",
    "=>": "write >=",
    "=<": "write <=",
    "!": "write NOT, or a minus before the term",
    ",": "join values with OR, as in field = (A OR B)",
    "\\": "put text with a backslash in quotes, and write it twice there",
}


def explain(
    error: UnexpectedCharacters | UnexpectedToken, expected: Set[str], text: str, open_at: Sequence[int]
) -> FilterError:
    """Return the error for where the parser stopped.

    ``expected`` are the terminals that it would have taken; ``open_at`` are the
    positions of the parentheses that were open.
    """
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return _explain_end(expected, len(text), open_at)
    position = error.pos_in_stream or 0
    return FilterError(_explain_character(expected, text, position, open_at), position)


def _explain_end(expected: Set[str], end: int, open_at: Sequence[int]) -> FilterError:
    if "RPAR" in expected and open_at:
        return FilterError(f"the parenthesis at character {open_at[-1]} is not closed: add )", end)
    return FilterError(f"the filter ends too early: {_wanted(expected)}", end)


def _explain_character(expected: Set[str], text: str, position: int, open_at: Sequence[int]) -> str:
    char = text[position]
    if char in "\"'" and _is_unclosed(text, position):
        return f"the quote {char} is never closed: add another, or write \\{char} inside a quoted text"
    for start in (position - 1, position):
        for length in (2, 1):
            remedy = _OTHER_LANGUAGES.get(text[max(start, 0) : max(start, 0) + length])
            if remedy and start + length > position:
                return remedy
    if char == ")" and not open_at:
        return "no parenthesis is open here: remove ) or add ( before"
    if position and not text[position - 1].isspace() and "_OR" in expected and char not in "<>=:().":
        return 'put a space here; a quote inside a quoted text is written \\"'
    return f"{quote(text[position : position + 12])} cannot stand here: {_wanted(expected)}"


def _is_unclosed(text: str, position: int) -> bool:
    mark, index = text[position], position + 1
    while index < len(text):
        if text[index] == mark:
            return False
        index += 2 if text[index] == "\\" else 1
    return True


def _wanted(expected: Set[str]) -> str:
    if "VALUE" in expected:
        return 'write a value: a word, a number, or text in quotes, as in hostname = "web-1"'
    end = ")" if "RPAR" in expected else "nothing more"
    if "COMPARATOR" in expected:
        return f"write a comparison (= != < <= > >= or :), AND, OR or {end}"
    if "_OR" in expected:
        return f"write AND, OR or {end}"
    return 'write a comparison, as in hostname = "web-1"'

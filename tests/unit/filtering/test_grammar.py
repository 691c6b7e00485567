"""What text means which filter, and what is refused where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.filtering import FilterError, bind, parse
from controlplane.filtering.grammar import MAX_COMPARISONS, MAX_DEPTH, MAX_LENGTH
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
from tests.unit.filtering.strategies import ALPHABET, SCHEMA, filter_texts, render, trees


def term(name: str) -> Search:
    return Search(Literal(name))


def compare(path: str, operator: str, value: str) -> Comparison:
    return Comparison(tuple(map(Literal, path.split("."))), Operator(operator), Literal(value))


a, b, c = term("a"), term("b"), term("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", Everything()),
        (" \t\n", Everything()),
        ("a", a),
        ("a AND b OR c", And((a, Or((b, c))))),
        ("a OR b AND c", And((Or((a, b)), c))),
        ("a b OR c", And((a, Or((b, c))))),
        ("a b AND c", And((a, b, c))),
        ("(a AND b) OR c", Or((And((a, b)), c))),
        ("NOT a OR b", Or((Not(a), b))),
        ("-a b", And((Not(a), b))),
        ("NOT (NOT a)", Not(Not(a))),
        ("NOT(a)", Not(a)),
        ("a AND(b)", And((a, b))),
        ("a-b", term("a-b")),
        ("10.0.0.1", term("10.0.0.1")),
        ("p<=5", compare("p", "<=", "5")),
        ("p = -5", compare("p", "=", "-5")),
        ("v = 1.2.3-rc", compare("v", "=", "1.2.3-rc")),
        ("labels.AND = b", compare("labels.AND", "=", "b")),
        ("t > 2030-01-31T12:00:00.5+02:00", compare("t", ">", "2030-01-31T12:00:00.5+02:00")),
        ("s = (A OR B)", Or((compare("s", "=", "A"), compare("s", "=", "B")))),
        ("s = (A AND NOT B)", And((compare("s", "=", "A"), Not(compare("s", "=", "B"))))),
        ("s != (A OR B)", Not(Or((compare("s", "=", "A"), compare("s", "=", "B"))))),
        ("s = A -b", And((compare("s", "=", "A"), Not(b)))),
    ],
)
def test_text_means(text: str, tree: Filter) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ('"a b"', Literal("a b", quoted=True)),
        ("'a \"b'", Literal('a "b', quoted=True)),
        (r'"\"\\\*\n"', Literal('"\\*\n', quoted=True)),
        ('"*a*"', Literal("*a*", quoted=True, wildcards=(0, 2))),
        (r'"\**"', Literal("**", quoted=True, wildcards=(1,))),
        ("a*", Literal("a*", wildcards=(1,))),
    ],
)
def test_literals_resolve_escapes_and_know_their_wildcards(text: str, literal: Literal) -> None:
    assert parse(text) == Search(literal)


@pytest.mark.parametrize(
    ("text", "position", "remedy"),
    [
        ("a =", 3, "write a value"),
        ("a = AND b", 4, "a value is missing before AND"),
        ("a OR", 4, "ends too early"),
        ("AND a", 0, "a term is missing before AND"),
        ("NOT NOT a", 4, "parentheses"),
        ("(a", 2, "parenthesis at character 0 is not closed"),
        ("a)", 1, "no parenthesis is open"),
        ("()", 1, "write a comparison"),
        ('a = "b', 4, "never closed"),
        ('a = "it"s"', 8, "put a space here"),
        (r'a = "b\q"', 6, "is no escape"),
        ("f(a)", 0, "calls a function"),
        ("a = f(b)", 4, "calls a function"),
        ("m.f(a)", 2, "calls a function"),
        ("a == b", 3, "write = once"),
        ("a <> b", 3, "write !="),
        ("a =~ b", 3, "write = with a *"),
        ("!a", 0, "write NOT"),
        ("a = 1 && b = 2", 6, "write AND"),
        ("a = 1 or b = 2", 6, "write OR"),
        ("a = (b c)", 7, "write AND, OR or )"),
        ("a, b", 1, "join values with OR"),
        ("- a", 0, "write a comparison"),
        ('labels."a"', 0, "needs a comparison"),
        ("a = \x00", 4, "U+0000"),
        ("\ud800", 0, "U+D800"),
    ],
)
def test_what_is_no_filter_is_refused_where_it_fails(text: str, position: int, remedy: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert refused.value.position == position
    assert remedy in refused.value.description


def test_an_error_carries_what_the_wire_needs() -> None:
    with pytest.raises(FilterError) as refused:
        parse("a =")
    error = refused.value.of_field("selector")
    assert error.reason == "FILTER_INVALID"
    assert error.metadata == {"position": "3"}
    assert [violation.field for violation in error.violations] == ["selector"]
    assert error.message.startswith("selector, character 3: ")


def test_a_filter_at_each_limit_is_accepted() -> None:
    parse('"' + "x" * (MAX_LENGTH - 2) + '"')
    parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    parse(" ".join("a" for _ in range(MAX_COMPARISONS)))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("x" * (MAX_LENGTH + 1), MAX_LENGTH),
        ("a=" + "(" * (MAX_DEPTH + 1), MAX_DEPTH + 2),
        ("a " * (MAX_COMPARISONS + 1), 2 * MAX_COMPARISONS),
        ("a = (" + " OR ".join("b" for _ in range(MAX_COMPARISONS + 1)) + ")", 5 + 5 * MAX_COMPARISONS),
    ],
)
def test_a_filter_over_a_limit_is_refused_where_it_passes_it(text: str, position: int) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert refused.value.position == position


@given(trees)
def test_a_tree_written_as_text_parses_to_itself(tree: Filter) -> None:
    assert parse(render(tree)) == tree


_fragments = st.sampled_from(
    [
        "AND",
        "OR",
        "NOT",
        "-",
        "(",
        ")",
        "=",
        "!=",
        "<",
        ":",
        ".",
        ",",
        '"',
        "'",
        "\\",
        "*",
        "!",
        "~",
        "hostname",
        "labels",
        "priority",
        "seen_time",
        "clone",
        "2030-01-01T00:00:00Z",
        "20s",
        "f(",
        "\n",
        " ",
    ]
)
_garbage = st.text() | st.text(ALPHABET) | st.lists(_fragments, max_size=15).map("".join)


def refusal(text: str) -> FilterError | None:
    """Return why a text is no filter, or None if it is one; let every other error through."""
    try:
        bind(parse(text), SCHEMA)
    except FilterError as error:
        return error
    return None


@given(_garbage)
def test_garbage_is_refused_inside_the_text_or_understood(text: str) -> None:
    error = refusal(text)
    assert error is None or 0 <= error.position <= len(text)


@given(filter_texts, st.data())
def test_a_damaged_filter_is_refused_inside_the_text_or_understood(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    damaged = text[:start] + data.draw(st.sampled_from(["", '"', ")", "(", "=", "\\", " ", "*"])) + text[end:]
    error = refusal(damaged)
    assert error is None or 0 <= error.position <= len(damaged)


def test_the_examples_of_the_docs_are_filters() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "filters.md").read_text("utf-8")
    introduction = page.split("## Grammar")[0]
    examples = [line for line in introduction.splitlines() if line.startswith("    ")]
    assert len(examples) == 5
    for example in examples:
        parse(example)

"""Random filters, as trees and as text, and random rows for them to choose from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from controlplane.filtering import (
    BooleanField,
    DurationField,
    EnumField,
    FilterSchema,
    IntegerField,
    LabelsField,
    RealField,
    TextField,
    TimestampField,
)
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

SCHEMA = FilterSchema(
    {
        "agent_id": TextField(),
        "hostname": TextField(),
        "os.family": TextField(),
        "priority": IntegerField(),
        "load": RealField(),
        "clone": BooleanField(),
        "seen_time": TimestampField(),
        "interval": DurationField(),
        "presence": EnumField({"PRESENCE_ONLINE": "on", "PRESENCE_STALE": "st"}, prefix="PRESENCE_"),
        "labels": LabelsField(),
    },
    searched=("agent_id", "hostname"),
)

Row = dict[str, object]

# Few characters, so that random texts meet: cases, what LIKE and GLOB would treat as theirs, quotes, and
# characters whose order by UTF-16 differs from that by code point.
ALPHABET = "aAbBzé%_*?[\\\"' .-\uffee\U0001f600"
texts = st.text(ALPHABET, max_size=4)
keys = st.sampled_from(["env", "a.b/c", "weird key", "Env"])
orderings = st.sampled_from(["<", "<=", ">", ">="])
equalities = st.sampled_from(["=", "!=", ":"])
comparators = orderings | equalities
moments = st.integers(-3, 3).map(lambda steps: datetime(2030, 1, 1, tzinfo=UTC) + timedelta(minutes=steps))


def micros(moment: datetime) -> int:
    """Return the stored form of a time."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def quoted(text: str) -> str:
    """Return a text in quotes that means itself, stars included."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
    return f'"{escaped}"'


# --- Text of filters that bind to SCHEMA ------------------------------------------------------------

_patterns = st.tuples(st.sampled_from(["", "*"]), texts, st.sampled_from(["", "*"])).map(
    lambda parts: f'"{parts[0]}{quoted(parts[1])[1:-1]}{parts[2]}"'
)
_text_paths = st.sampled_from(["agent_id", "hostname", "os.family"]) | keys.map(
    lambda key: f"labels.{quoted(key)}"
)


def _joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(" ".join)


_leaves = st.one_of(
    _joined(_text_paths, orderings, texts.map(quoted)),
    _joined(_text_paths, equalities, _patterns),
    _joined(st.just("priority"), comparators, st.integers(-2, 2).map(str) | st.just(str(2**62))),
    _joined(st.just("load"), comparators, st.sampled_from(["-1.5", "0", "0.25", "1e300"])),
    _joined(st.just("clone"), equalities, st.sampled_from(["true", "false"])),
    _joined(st.just("seen_time"), comparators, moments.map(datetime.isoformat)),
    _joined(st.just("interval"), comparators, st.sampled_from(["0s", "1.5s", "-20s", "1m", "60000ms"])),
    _joined(st.just("presence"), equalities, st.sampled_from(["ONLINE", "PRESENCE_STALE"])),
    _joined(st.just("presence"), st.sampled_from(["=", "!="]), st.just("(ONLINE OR NOT STALE)")),
    st.sampled_from([*SCHEMA.fields, "labels.env", 'labels."weird key"']).map(lambda name: f"{name}:*"),
    _joined(st.just("labels"), st.just(":"), keys.map(quoted)),
    _patterns,
    st.just("*"),
)

filter_texts = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " AND ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " OR ".join(parts) + ")"),
        inner.map(lambda part: f"NOT ({part})"),
        inner.map(lambda part: f"-({part})"),
    ),
    max_leaves=6,
)

# --- Rows -------------------------------------------------------------------------------------------


def _or_absent(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


rows: st.SearchStrategy[list[Row]] = st.lists(
    st.fixed_dictionaries(
        {
            "agent_id": texts,
            "hostname": _or_absent(texts),
            "os.family": _or_absent(texts),
            "priority": _or_absent(st.integers(-2, 2)),
            "load": _or_absent(st.sampled_from([-1.5, 0.0, 0.25, 1e300])),
            "clone": _or_absent(st.booleans()),
            "seen_time": _or_absent(moments.map(micros)),
            "interval": _or_absent(st.sampled_from([0, 1_500_000, -20_000_000, 60_000_000])),
            "presence": _or_absent(st.sampled_from(["on", "st"])),
            "labels": st.dictionaries(keys, texts, max_size=3),
        }
    ),
    max_size=5,
)

# --- Trees, and the text that a tree is parsed from ---------------------------------------------------

_words = st.from_regex(r"[a-zA-Z0-9_/*é][a-zA-Z0-9_/*é-]{0,6}", fullmatch=True).filter(
    lambda word: word.lower() not in ("and", "or", "not")
)


def _word(text: str) -> Literal:
    return Literal(text, wildcards=tuple(index for index, char in enumerate(text) if char == "*"))


@st.composite
def _quoted_literals(draw: st.DrawFn) -> Literal:
    text = draw(st.text(st.sampled_from(ALPHABET + "\n\t:=<>()")))
    stars = [index for index, char in enumerate(text) if char == "*"]
    wild = draw(st.sets(st.sampled_from(stars))) if stars else set()
    return Literal(text, quoted=True, wildcards=tuple(sorted(wild)))


_literals = _words.map(_word) | _quoted_literals()
_comparisons = st.builds(
    Comparison,
    st.lists(_literals, min_size=1, max_size=3).map(tuple),
    st.sampled_from(Operator),
    _literals,
)

trees: st.SearchStrategy[Filter] = st.just(Everything()) | st.recursive(
    _comparisons | _literals.map(Search),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=10,
)


def render(tree: Filter) -> str:
    """Return text that parses to the tree."""
    match tree:
        case Everything():
            return ""
        case Search(literal):
            return _render_literal(literal)
        case Comparison(path, operator, value):
            return ".".join(map(_render_literal, path)) + f" {operator} {_render_literal(value)}"
        case Not(part):
            return f"NOT {_render_part(part)}"
        case And(parts):
            return " AND ".join(map(_render_part, parts))
        case Or(parts):
            return " OR ".join(map(_render_part, parts))


def _render_part(tree: Filter) -> str:
    return f"({render(tree)})" if isinstance(tree, And | Or | Not) else render(tree)


def _render_literal(literal: Literal) -> str:
    if not literal.quoted:
        return literal.text
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    pieces = [
        "\\*" if char == "*" and index not in literal.wildcards else escapes.get(char, char)
        for index, char in enumerate(literal.text)
    ]
    return '"' + "".join(pieces) + '"'

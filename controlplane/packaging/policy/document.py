"""Policies as documents, in YAML or JSON: read strictly, with limits, and known by their digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from controlplane.packaging.policy.rules import Outcome

SCHEMA: Final = "fleetwright.policy/v1"
MAX_BYTES: Final = 65_536
MAX_RULES: Final = 100
MAX_EXPRESSION: Final = 2_048
"""Characters of a rule's expression."""
MAX_DESCRIPTION: Final = 1_000
MAX_NESTING: Final = 8
"""Of a document, which has three levels."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")


class PolicyError(Exception):
    """A policy cannot be used, or could not answer: never a pass.

    ``rule`` is the name of the rule that it is about, or empty for the document as a whole.
    """

    def __init__(self, rule: str, problem: str) -> None:
        super().__init__(f"rule {rule!r}: {problem}" if rule else f"policy: {problem}")
        self.rule = rule
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: where ``when`` is true, there is an objection with ``outcome``."""

    name: str
    about: str
    """"finding": asked for each finding. "package": asked once."""
    when: str
    """An expression of CEL that is true or false."""
    outcome: Outcome
    excusable: bool = True
    """Whether exceptions can lift its objections."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it was written; ``sha256`` is of ``canonical``, so spaces and comments do not change it."""

    name: str
    version: str
    description: str
    rules: tuple[Rule, ...]
    canonical: str
    sha256: str


def read_policy(text: bytes) -> Policy:
    """Read a policy; raises ``PolicyError``."""
    if len(text) > MAX_BYTES:
        raise PolicyError("", f"has {len(text)} bytes; at most {MAX_BYTES} are read")
    document = _decoded(text)
    _only(document, {"schema", "name", "version", "description", "rules"}, "")
    if document.get("schema") != SCHEMA:
        raise PolicyError("", f"schema is {str(document.get('schema'))[:64]!r}, not {SCHEMA!r}")
    rules = document.get("rules")
    if not isinstance(rules, list) or not 1 <= len(rules) <= MAX_RULES:
        raise PolicyError("", f"rules is no list of 1 to {MAX_RULES} rules")
    return _policy(
        _text(document, "name", _NAME, ""),
        _text(document, "version", _VERSION, ""),
        _words(document, ""),
        tuple(_rule(one, number) for number, one in enumerate(rules)),
    )


def _policy(name: str, version: str, description: str, rules: tuple[Rule, ...]) -> Policy:
    names = [rule.name for rule in rules]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice:
        raise PolicyError(twice, "occurs twice")
    content = {
        "schema": SCHEMA,
        "name": name,
        "version": version,
        "description": description,
        "rules": [
            {
                "name": rule.name,
                "about": rule.about,
                "when": rule.when,
                "outcome": rule.outcome.value,
                "excusable": rule.excusable,
                "description": rule.description,
            }
            for rule in rules
        ],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Policy(
        name, version, description, rules, canonical, hashlib.sha256(canonical.encode()).hexdigest()
    )


def _rule(document: Any, number: int) -> Rule:
    place = f"rules[{number}]"
    if not isinstance(document, dict):
        raise PolicyError(place, "is no mapping")
    name = _text(document, "name", _NAME, place)
    _only(document, {"name", "about", "when", "outcome", "excusable", "description"}, name)
    when = document.get("when")
    if not isinstance(when, str) or not when.strip() or len(when) > MAX_EXPRESSION:
        raise PolicyError(name, f"when is no expression of 1 to {MAX_EXPRESSION} characters")
    excusable = document.get("excusable", True)
    if not isinstance(excusable, bool):
        raise PolicyError(name, "excusable is neither true nor false")
    return Rule(
        name=name,
        about=_choice(document, "about", ("finding", "package"), name),
        when=when.strip(),
        outcome=Outcome(_choice(document, "outcome", ("FAIL", "UNDECIDED"), name)),
        excusable=excusable,
        description=_words(document, name),
    )


def _choice(document: Mapping[str, Any], field: str, choices: tuple[str, ...], rule: str) -> str:
    value = document.get(field)
    if not isinstance(value, str) or value not in choices:
        raise PolicyError(rule, f"{field} is {str(value)[:64]!r}, none of {', '.join(choices)}")
    return value


def _text(document: Mapping[str, Any], field: str, pattern: re.Pattern[str], rule: str) -> str:
    value = document.get(field)
    # A version like 1.10 is a number for YAML, and 1.1 then: it must stand in quotes.
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise PolicyError(rule, f"{field} is no text of the form {pattern.pattern}; put numbers in quotes")
    return value


def _words(document: Mapping[str, Any], rule: str) -> str:
    value = document.get("description", "")
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION:
        raise PolicyError(rule, f"description is no text of at most {MAX_DESCRIPTION} characters")
    return value


def _only(document: Mapping[str, Any], known: set[str], rule: str) -> None:
    unknown = sorted(str(name) for name in set(document) - known)
    if unknown:
        raise PolicyError(
            rule, f"{unknown[0][:64]!r} is no field that is known; {', '.join(sorted(known))} are"
        )


class _Strict(yaml.SafeLoader):
    """YAML without what hides things: no aliases, no field twice, no more nesting than a policy has."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise PolicyError("", "has an alias; write what it stands for")
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise PolicyError("", "is nested too deeply")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise PolicyError("", "has a mapping whose field is no text")
            if key.value in known:
                raise PolicyError("", f"has {key.value[:64]!r} twice in one mapping")
            known.add(key.value)
        return dict(super().construct_mapping(node, deep))


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        # JSON is YAML too, with the same limits. The loader is a safe one, only stricter.
        document = yaml.load(text.decode("utf-8"), Loader=_Strict)  # noqa: S506
    except UnicodeDecodeError as error:
        raise PolicyError("", f"is not UTF-8 at byte {error.start}") from error
    except PolicyError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise PolicyError("", f"is neither YAML nor JSON: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(document, dict):
        raise PolicyError("", "is no mapping")
    return document

"""Asking the rules of a policy about a package, in CEL (https://github.com/google/cel-spec), by cel-python.

An expression is compiled and checked against the shape of the input when the policy is loaded. While it is
evaluated its steps are counted, so that an expression that would take for ever is an error, the same on every
machine; a limit of time stands behind that. Whatever goes wrong is a ``PolicyError`` that names the rule.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lark
from celpy import Environment
from celpy.adapter import json_to_cel
from celpy.celparser import CELParseError
from celpy.celtypes import BoolType
from celpy.evaluation import Activation, CELEvalError, Evaluator

from controlplane.packaging.policy.checking import CheckFailed, check
from controlplane.packaging.policy.document import Policy, PolicyError, Rule, read_policy
from controlplane.packaging.policy.facts import FINDING_SHAPE, SHAPE
from controlplane.packaging.policy.rules import Objection, Outcome, rule_subject

MAX_STEPS: Final = 5_000_000
"""Nodes of expressions that one evaluation of a policy may visit."""
MAX_SECONDS: Final = 30.0
MAX_SHOWN: Final = 200
"""Characters of a value that the trace of a rule shows."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule that can be asked."""

    rule: Rule
    tree: lark.Tree[Any]
    reads: frozenset[str]
    """Paths of the input that it reads."""


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy whose rules can be asked; ``load_policy`` makes one."""

    policy: Policy
    rules: tuple[CompiledRule, ...]


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """What a rule was asked and what it said."""

    rule: Rule
    outcome: Outcome
    asked: int
    """How often: once for the package, or once for each finding."""
    objections: int
    inputs: Mapping[str, Any]
    """What it read of the package; what it read of findings that it objects to is in ``matched``."""
    matched: Sequence[Mapping[str, Any]]
    """Of each finding that it objects to: its id, its component, and what the rule read of it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the rules of a policy say of a package."""

    objections: Sequence[Objection]
    traces: Sequence[RuleTrace]
    """In the order of the rules."""


def load_policy(text: bytes) -> CompiledPolicy:
    """Read and compile a policy; raises ``PolicyError``, which names the rule that cannot be."""
    policy = read_policy(text)
    environment = Environment()
    return CompiledPolicy(policy, tuple(_compiled(environment, rule) for rule in policy.rules))


def _compiled(environment: Environment, rule: Rule) -> CompiledRule:
    try:
        tree = environment.compile(rule.when)
        reads = check(tree, FINDING_SHAPE if rule.about == "finding" else SHAPE)
    except CheckFailed as error:
        raise PolicyError(rule.name, str(error)) from error
    except CELParseError as error:
        raise PolicyError(rule.name, f"is no CEL at line {error.line}, column {error.column}") from error
    except Exception as error:
        raise PolicyError(rule.name, f"cannot be compiled: {type(error).__name__}: {error}") from error
    return CompiledRule(rule, tree, reads)


def evaluate(policy: CompiledPolicy, facts: Mapping[str, Any]) -> Evaluation:
    """Return what the rules say of the package that ``facts``, made by ``policy_input``, are about.

    Raises ``PolicyError`` for a rule that errs or does not say true or false.
    """
    budget = _Budget(MAX_STEPS, time.monotonic() + MAX_SECONDS)
    known = {name: _converted(name, value) for name, value in facts.items()}
    traces, objections = [], []
    for compiled in policy.rules:
        ask = _about_findings if compiled.rule.about == "finding" else _about_package
        trace, found = ask(compiled, facts, known, budget)
        traces.append(trace)
        objections += found
    return Evaluation(tuple(objections), tuple(traces))


def _converted(name: str, value: Any) -> Any:
    try:
        return json_to_cel(value)
    except Exception as error:
        raise PolicyError("", f"the input {name!r} cannot be put to rules: {error}") from error


_Asked = tuple[RuleTrace, list[Objection]]


def _about_package(
    compiled: CompiledRule, facts: Mapping[str, Any], known: Mapping[str, Any], budget: _Budget
) -> _Asked:
    objects = _true(compiled, known, budget)
    rule = compiled.rule
    found = (
        [Objection(rule.name, rule.outcome, (rule_subject(rule.name),), rule.excusable)] if objects else []
    )
    return _trace(compiled, facts, 1, found, ()), found


def _about_findings(
    compiled: CompiledRule, facts: Mapping[str, Any], known: Mapping[str, Any], budget: _Budget
) -> _Asked:
    found, matched = [], []
    # CEL has no side effects and no clock: findings that are alike in all that the rule reads get one answer.
    answers: dict[str, bool] = {}
    for finding in facts["findings"]:
        read = _read({"finding": finding}, compiled.reads)
        key = json.dumps(read, sort_keys=True)
        if key not in answers:
            answers[key] = _true(compiled, {**known, "finding": _converted("finding", finding)}, budget)
        if answers[key]:
            found.append(_objection(compiled.rule, finding))
            matched.append(_match(finding, read))
    return _trace(compiled, facts, len(facts["findings"]), found, matched), found


def _objection(rule: Rule, finding: Mapping[str, Any]) -> Objection:
    names = (
        finding["vulnerability"],
        *(one for one in finding["aliases"] if one != finding["vulnerability"]),
    )
    return Objection(rule.name, rule.outcome, names, rule.excusable, finding["component"])


def _match(finding: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    shown = {path: _shown(value) for path, value in sorted(read.items())}
    return {"vulnerability": finding["vulnerability"], "component": finding["component"], "read": shown}


def _trace(
    compiled: CompiledRule,
    facts: Mapping[str, Any],
    asked: int,
    found: Sequence[Objection],
    matched: Iterable[Mapping[str, Any]],
) -> RuleTrace:
    inputs = {path: _shown(value) for path, value in sorted(_read(facts, compiled.reads).items())}
    outcome = compiled.rule.outcome if found else Outcome.PASS
    return RuleTrace(compiled.rule, outcome, asked, len(found), inputs, tuple(matched))


def _read(facts: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Return what lies at those of the paths that begin in ``facts``."""
    found = {}
    for path in paths:
        first, *rest = path.split(".")
        if first in facts:
            value = facts[first]
            for name in rest:
                value = value[name]
            found[path] = value
    return found


def _shown(value: Any) -> Any:
    """Return a value for people: as it is if it is small, else what it is."""
    if len(json.dumps(value)) <= MAX_SHOWN:
        return value
    return f"{len(value)} entries" if isinstance(value, list | dict) else f"{str(value)[:MAX_SHOWN]}…"


def _true(compiled: CompiledRule, known: Mapping[str, Any], budget: _Budget) -> bool:
    name = compiled.rule.name
    try:
        value = _Counted(compiled.tree, Activation(vars=known), budget).evaluate()
    except CELEvalError as error:
        raise PolicyError(name, f"errs: {_first(error)}") from error
    except _Spent as error:
        raise PolicyError(name, str(error)) from error
    except Exception as error:
        raise PolicyError(name, f"errs: {type(error).__name__}: {str(error)[:MAX_SHOWN]}") from error
    if not isinstance(value, BoolType):
        raise PolicyError(name, f"gives a {type(value).__name__}; a rule is true or false")
    return bool(value)


def _first(error: CELEvalError) -> str:
    return str(error.args[0] if error.args else error).splitlines()[0][:MAX_SHOWN]


class _Spent(Exception):
    """An evaluation has taken more than it may."""


class _Budget:
    """The steps and the time that are left for an evaluation."""

    def __init__(self, steps: int, deadline: float) -> None:
        self._steps = steps
        self._deadline = deadline

    def spend(self) -> None:
        """Take one step; raises ``_Spent`` where none is left."""
        self._steps -= 1
        if self._steps < 0:
            raise _Spent(f"takes more than {MAX_STEPS} steps; ask for less, or of fewer findings at once")
        if self._steps % 1_024 == 0 and time.monotonic() > self._deadline:
            raise _Spent(f"takes more than {MAX_SECONDS:.0f} seconds")


class _Counted(Evaluator):
    """The library's evaluator, counting its steps, also those within macros."""

    def __init__(self, ast: lark.Tree[Any], activation: Activation, budget: _Budget) -> None:
        super().__init__(ast, activation)
        self._budget = budget

    def sub_evaluator(self, ast: lark.Tree[Any]) -> Evaluator:
        """Return the evaluator of what stands within a macro."""
        return _Counted(ast, self.activation, self._budget)

    def visit_children(self, tree: lark.Tree[Any]) -> Any:
        """Visit the parts of an expression."""
        self._budget.spend()
        return super().visit_children(tree)

"""Messages in: parsed, and checked against the rules that stand in the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import protovalidate
from google.protobuf.message import DecodeError, Message

from controlplane.errors import FieldViolation, InvalidArgument, ResourceExhausted
from controlplane.transport.forms import in_words
from controlplane.transport.instants import out_of_range

_PACKAGE = "fleetwright."
# Compiling the rules of a message type is the dear part, so all calls share one validator.
_validator = protovalidate.Validator()
_collect = _validator.collect_violations


def parser(deserialize: Callable[[bytes], Any], max_bytes: int) -> Callable[[bytes], Any]:
    """Return a function from the bytes of a message to the valid message.

    It raises ``ResourceExhausted`` with LIMIT_EXCEEDED for more than ``max_bytes``, and
    ``InvalidArgument`` with VALIDATION_FAILED for bytes that are no such message, and for a message
    of ours that breaks a rule or holds a Timestamp or Duration out of range, with one violation for
    each field and rule.
    """

    def parse(data: bytes) -> Any:
        if len(data) > max_bytes:
            raise ResourceExhausted(
                "LIMIT_EXCEEDED",
                f"the message has {len(data)} bytes; send at most {max_bytes} in one message",
                metadata={"max_message_bytes": str(max_bytes)},
            )
        try:
            message = deserialize(data)
        except DecodeError:
            raise InvalidArgument(
                "VALIDATION_FAILED", "the bytes sent are not a message of this method's request type"
            ) from None
        if _is_ours(message):
            validate(message)
        return message

    return parse


def validate(message: Message) -> None:
    """Check one message that did not come through a listener; raises as ``parser`` says."""
    # First, because the rules of the contract would fail to convert what is out of range.
    if unconvertible := out_of_range(message):
        raise _failed(unconvertible)
    if violations := _collect(message):
        raise _failed([_violation(v) for v in violations])


def _is_ours(message: Any) -> bool:
    return isinstance(message, Message) and message.DESCRIPTOR.full_name.startswith(_PACKAGE)


def _failed(violations: list[FieldViolation]) -> InvalidArgument:
    first = violations[0]
    return InvalidArgument(
        "VALIDATION_FAILED", f"{first.field or 'message'}: {first.description}", violations=violations
    )


def _violation(violation: Any) -> FieldViolation:
    proto = violation.proto
    elements = proto.field.elements if proto.field is not None else ()
    path = ".".join(_element(element) for element in elements)
    words = in_words(proto.rule_id, violation.rule_value, violation.field_value)
    description = words or proto.message or proto.rule_id or "breaks a rule of the contract"
    return FieldViolation(path, f"key {description}" if proto.for_key else description)


def _element(element: Any) -> str:
    subscript = element.subscript
    if subscript is None:
        return str(element.field_name)
    value = f'"{subscript.value}"' if subscript.field == "string_key" else str(subscript.value)
    return f"{element.field_name}[{value}]"

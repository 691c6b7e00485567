"""What of a text or of a command's arguments is a secret, and how the rest is shown.

Pure. What is shown in the place of a secret is ``REDACTED``; names stay, so that a
reader sees what was given.

Invariants:

* No character of a value that the rules call secret is in what is returned.
* Redacting twice gives what redacting once gives.
* Too much is hidden rather than too little: in an argument, all that follows the
  name of a secret is hidden, because nobody knows where a value ends.
* It cannot find what has no sign of being a secret, such as the second of
  ``-p hunter2``. Such values belong into a script's environment, whose values are
  all hidden.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REDACTED = "[redacted]"

# Endings of a word, so that PGPASSWORD and authtoken are found and tokenizer is not.
_SECRET_ENDINGS = (
    *("password", "passwords", "passwd", "passphrase", "secret", "secrets", "token", "credential"),
    *("credentials", "authorization", "apikey", "accesskey", "secretkey", "privatekey", "signingkey"),
)
# Words that are too short to be looked for at the end of others.
_SECRET_WORDS = frozenset({"auth", "bearer", "cookie", "pass", "pin", "pwd"})
# The value of such a name says where a secret is, and is none.
_PLACES = frozenset({"file", "path", "dir", "stdin"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[A-Z]+")

# With these schemes, a name without a password is a login and no token.
_LOGINS = frozenset({"ssh", "git", "git+ssh", "sftp", "scp"})
# All patterns take time in proportion to the text: they begin at borders of words and do not go back.
_URL = re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]*+)://(\S++)")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# RFC 9110, section 11.4, and RFC 6750: a scheme and what proves the caller.
_CREDENTIALS = re.compile(r"\b(authorization\s*+[:=]\s*+)(?:[A-Za-z][\w-]*+\s++)?[^\s\"',;]++", re.IGNORECASE)
_BEARER = re.compile(r"\b((?i:bearer)\s++|(?i:basic)\s++(?=\S*[0-9A-Z=]))(?!\[redacted\])[\w.~+/=-]{6,}+")
# Tokens that tell by their form: of this product, and of RFC 7519.
_TOKENS = re.compile(r"(?<![\w-])(?:fwt1\.[\w.-]++|eyJ[\w-]++\.[\w-]++\.[\w-]*+)")
# An assignment of a text, or a field of JSON: an unquoted name before a colon only speaks of a secret.
_ASSIGNED = re.compile(r"(?<![\w.-])([\w.-]++)(?:=|[\"']\s*+:\s*+)(?!\[redacted\])")
_VALUE = re.compile(r"\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?|[^\s&;,\"']++", re.DOTALL)
_NAME = re.compile(r"(?<![\w.-])([\w.-]++)[\"']?\s*+[=:]\s*+")


def is_secret_name(name: str) -> bool:
    """Return whether what has this name is a secret: ``--db-password``, ``API_KEY``, ``authToken``."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _PLACES:
        return False
    return words[-1] == "key" or any(
        word.endswith(_SECRET_ENDINGS) or (word in _SECRET_WORDS) for word in words
    )


def text(value: str) -> str:
    """Return ``value``, a text for people, without the secrets that tell by their form.

    For log lines and reasons. Of an assignment the value ends at the next space or
    separator, since what follows it belongs to the text.
    """
    return _without_assigned(_by_form(value)) if _may_hold_secrets(value) else value


def _may_hold_secrets(value: str) -> bool:
    # Every pattern needs one of these signs, and most texts have none: a tenth of the time.
    if "=" in value or "@" in value or "-----" in value or "eyJ" in value or "fwt1." in value:
        return True
    if ":" in value and ('"' in value or "'" in value):
        return True
    lower = value.lower()
    return "bearer" in lower or "basic" in lower or "authorization" in lower


def arguments(values: Sequence[str]) -> list[str]:
    """Return a command's arguments without their secrets; as many, in the same order."""
    shown = []
    follows = False
    for value in values:
        shown.append(REDACTED if follows else _argument(value))
        # Also of one that was hidden: "--no-auth --token x" would show its x otherwise.
        follows = _announces(value)
    return shown


def _announces(argument: str) -> bool:
    """Return whether the argument after this one is a secret: ``--password``."""
    return argument.startswith("-") and "=" not in argument and is_secret_name(argument)


def _argument(value: str) -> str:
    value = _by_form(value)
    for found in _NAME.finditer(value):
        end = found.end()
        # "token://x" is no assignment to "token".
        if is_secret_name(found[1]) and not value.startswith("//", end):
            return value[:end] + REDACTED if end < len(value) else value
    return value


def _by_form(value: str) -> str:
    if "-----" in value:
        value = _PRIVATE_KEY.sub(REDACTED, value)
    if "://" in value:
        value = _URL.sub(_without_user_info, value)
    value = _CREDENTIALS.sub(rf"\1{REDACTED}", value)
    value = _BEARER.sub(rf"\1{REDACTED}", value)
    return _TOKENS.sub(REDACTED, value)


def _without_user_info(found: re.Match[str]) -> str:
    """Hide what stands before the host of a URL (RFC 3986, section 3.2.1).

    Passwords are seldom encoded as they should be, so one goes up to the last "@".
    """
    scheme, rest = found[1], found[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, colon, after = rest.partition(":")
    if colon and "@" in after and "@" not in user and not _is_port(authority):
        return f"{scheme}://{user}:{REDACTED}@{after.rpartition('@')[2]}"
    if "@" in authority and scheme.lower() not in _LOGINS:
        return f"{scheme}://{REDACTED}@{rest[authority.rindex('@') + 1 :]}"
    return found[0]


def _is_port(authority: str) -> bool:
    return "@" not in authority and authority.rpartition(":")[2].isdigit()


def _without_assigned(value: str) -> str:
    """Hide what is assigned to names of secrets, also inside of what is assigned to another name."""
    shown, kept = [], 0
    for found in _ASSIGNED.finditer(value):
        if found.start() < kept or not is_secret_name(found[1]):
            continue
        assigned = _VALUE.match(value, found.end())
        if assigned is not None:
            shown += [value[kept : found.end()], REDACTED]
            kept = assigned.end()
    return "".join((*shown, value[kept:]))

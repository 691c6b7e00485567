"""What is shown of commands and texts that hold secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import redaction
from controlplane.redaction import REDACTED

NAMES = st.sampled_from(
    [
        *("password", "PASSWORD", "db-password", "PGPASSWORD", "apiKey", "API_KEY", "token", "authToken"),
        *("client_secret", "passphrase", "X-Api-Key", "credentials", "cookie", "private-key", "pass", "auth"),
    ]
)
# Nothing that could stand in the rest of an argument by accident.
SECRETS = st.text("qxzQXZ789_-!%", min_size=8, max_size=40)
FORMS = st.sampled_from(
    [
        lambda name, secret: [f"--{name}={secret}"],
        lambda name, secret: [f"--{name}", secret],
        lambda name, secret: [f"-{name}", secret],
        lambda name, secret: [f"{name}={secret}"],
        lambda name, secret: ["-e", f"{name}={secret} and {secret}"],
        lambda name, secret: ["-H", f"{name}: {secret}"],
        lambda name, secret: [f"--header={name}: {secret}"],
        lambda name, secret: [f'{{"{name}": "{secret}"}}'],
        lambda name, secret: [f"export {name}='{secret}'; run"],
        lambda name, secret: [f"https://example.com/?a=b&{name}={secret}"],
        lambda _name, secret: [f"postgresql://ada:{secret}@db.example:5432/fleet"],
        lambda _name, secret: [f"postgresql://ada:{secret}@{secret}/{secret}@db.example/fleet"],
        lambda _name, secret: [f"https://{secret}@git.example/repository"],
        lambda _name, secret: ["-H", f"Authorization: Bearer {secret}"],
        lambda _name, secret: ["-H", f"authorization: Custom {secret} {secret}"],
        lambda _name, secret: [f"Bearer {secret.replace('!', '.').replace('%', '.')}"],
        lambda _name, secret: [
            f"-----BEGIN EC PRIVATE KEY-----\n{secret}\n-----END EC PRIVATE KEY-----\n",
        ],
        lambda _name, secret: [f"-----BEGIN PRIVATE KEY-----\n{secret}"],
    ]
)
OTHERS = st.text(st.characters(exclude_characters="qxzQXZ789"), max_size=40)
ARGUMENTS = st.lists(st.one_of(OTHERS, st.sampled_from(["--no-auth", "--token", "-x"])), max_size=5)


@given(ARGUMENTS, FORMS, NAMES, SECRETS, ARGUMENTS)
def test_a_planted_secret_is_in_no_argument_that_is_shown(
    before: list[str], form: object, name: str, secret: str, after: list[str]
) -> None:
    planted = form(name, secret)  # type: ignore[operator]  # one of the functions above
    shown = redaction.arguments([*before, *planted, *after])
    assert secret not in "\n".join(shown)
    assert len(shown) == len(before) + len(planted) + len(after)


@given(
    st.lists(
        st.one_of(
            st.text(max_size=60), FORMS.flatmap(lambda form: st.builds(form, NAMES, SECRETS).map(" ".join))
        ),
        max_size=6,
    )
)
def test_redacting_twice_is_redacting_once(values: list[str]) -> None:
    once = redaction.arguments(values)
    assert redaction.arguments(once) == once
    texts = [redaction.text(value) for value in values]
    assert [redaction.text(value) for value in texts] == texts


@pytest.mark.parametrize(
    "argument",
    [
        *(
            "--verbose",
            "-v",
            "--retries=3",
            "--user=ada",
            "https://example.com:8443/a?b=c#d",
            "a=b",
            "tokenizer=x",
        ),
        *(
            "--token-file=/run/token",
            "--password-stdin",
            "ssh://git@example.com/repo",
            "user@example.com",
            "C:\\x",
        ),
        *(
            "npm:@scope/package@1.2",
            "https://example.com:443/@scope/p",
            "--keyboard=us",
            "time 12:30:00",
            "",
            "=",
        ),
    ],
)
def test_an_argument_without_a_sign_of_a_secret_is_shown_as_it_is(argument: str) -> None:
    assert redaction.arguments([argument]) == [argument]


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--db-password=hunter2", "--db-password=[redacted]"),
        ("TOKEN=abc def", "TOKEN=[redacted]"),
        ("Authorization: Bearer abc", "Authorization: [redacted]"),
        ("amqp://guest:guest@broker/vhost", "amqp://guest:[redacted]@broker/vhost"),
        ("--password=", "--password="),
    ],
)
def test_names_and_hosts_stay(argument: str, shown: str) -> None:
    assert redaction.arguments([argument]) == [shown]


def test_the_argument_after_the_name_of_a_secret_is_hidden_and_the_next_one_shown() -> None:
    assert redaction.arguments(["--token", "--x", "--y"]) == ["--token", REDACTED, "--y"]


def test_a_text_keeps_what_follows_a_secret() -> None:
    told = "cannot open postgresql://ada:hunter2@db/fleet?password=hunter2&ssl=on: no route to host"
    assert redaction.text(told) == (
        "cannot open postgresql://ada:[redacted]@db/fleet?password=[redacted]&ssl=on: no route to host"
    )


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("command='psql password=hunter2 -l'", "command='psql password=[redacted] -l'"),
        ('run="a=b;token=hunter2"', 'run="a=b;token=[redacted]"'),
        ("dsn=host=db;password=hunter2", "dsn=host=db;password=[redacted]"),
        ('{"user": "ada", "password": "hunter2"}', '{"user": "ada", "password": [redacted]}'),
        ("{'apiKey': 'hunter2'}", "{'apiKey': [redacted]}"),
        (r'password="one\"hunter2" --list', "password=[redacted] --list"),
    ],
)
def test_a_secret_inside_of_another_value_is_hidden_in_a_text(told: str, shown: str) -> None:
    assert redaction.text(told) == shown


@pytest.mark.parametrize(
    "told", ["join_token: is none; make one with CreateEnrollmentToken", "exit status 3", "basic arithmetic"]
)
def test_a_text_that_only_speaks_of_secrets_is_kept(told: str) -> None:
    assert redaction.text(told) == told

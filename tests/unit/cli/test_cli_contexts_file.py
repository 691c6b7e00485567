"""The file of contexts, and which of all that names a server wins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.connection import LOCAL_SERVER, NoServerNamed, Options, Target, target_of
from controlplane.cli.contexts_file import Context, Contexts, check_name, edit
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.settings import ClientSettings

PROD = Context("prod", "fleet.example.org:7444", Path("/ids/prod"))
TEST = Context("test", "test.example.org:7444", Path("/ids/test"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fleetwright" / "config.toml"


@pytest.fixture
def contexts(path: Path) -> Contexts:
    made = Contexts(path, {"prod": PROD, "test": TEST}, "prod")
    made.save()
    return made


def settings(path: Path, **values: object) -> ClientSettings:
    return ClientSettings(config=path, data_dir=path.parent / "none", **values)  # type: ignore[arg-type]


# What a TOML document cannot hold, and no path or address has: surrogates and the null character.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)


@given(identity=TEXT)
def test_what_is_written_is_read_again(identity: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    made = Contexts(path, {"a.b": Context("a.b", "[::1]:7444", Path(identity))}, "a.b")
    made.save()
    assert Contexts.load(path) == made


def test_a_file_that_is_not_there_has_no_contexts(path: Path) -> None:
    assert Contexts.load(path) == Contexts(path)


def test_a_file_that_is_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "real.toml")
    Contexts(path, {"prod": PROD}).save()
    assert path.is_symlink()
    assert "prod" in Contexts.load(path).known


def test_removing_the_current_context_leaves_none(contexts: Contexts) -> None:
    assert contexts.without("prod").current == ""
    assert contexts.without("test").current == "prod"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense\n", "line 1"),
        ("colour = 1", "unknown key 'colour'"),
        ('current = "gone"', "'gone'"),
        ("[contexts.a]\nserver = 'x:1'", "contexts.a"),
        ("[contexts.a]\nserver = 'x'\nidentity = 'y'", "HOST:PORT"),
        ("[contexts.a]\nserver = 1\nidentity = 'y'", "strings"),
        ("contexts = 1", "table"),
        ('[contexts.a]\nserver = "x:1"\nidentity = "a\\u0000b"', "contexts.a: identity"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(path: Path, text: str, words: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CommandFailed, match=words) as failed:
        Contexts.load(path)
    assert failed.value.message.startswith(str(path))
    assert failed.value.exit is Exit.USAGE


def test_two_who_change_the_file_at_once_both_do(path: Path) -> None:
    names = [f"c{number}" for number in range(8)]

    def add(name: str) -> None:
        for _ in range(5):
            edit(path, lambda contexts: contexts.with_context(replace(PROD, name=name), current=True))

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(add, names))
    assert sorted(Contexts.load(path).known) == names


def test_a_change_that_is_refused_leaves_the_file_and_locks_nobody_out(contexts: Contexts) -> None:
    before = contexts.path.read_bytes()
    with pytest.raises(CommandFailed):
        edit(contexts.path, lambda found: found.using("gone"))
    assert contexts.path.read_bytes() == before
    assert edit(contexts.path, lambda found: found.using("test")).current == "test"


def test_a_change_that_is_refused_makes_no_folder(path: Path) -> None:
    with pytest.raises(CommandFailed, match="there are none yet"):
        edit(path, lambda found: found.using("gone"))
    assert not path.parent.exists()


def test_a_folder_of_nobody_known_and_a_folder_that_is_no_text_are_refused(path: Path) -> None:
    with pytest.raises(CommandFailed, match="~no-such-user/x: this user is not known here"):
        target_of(Options(server="x:1", identity=Path("~no-such-user/x")), settings(path))
    with pytest.raises(CommandFailed, match="rename the folder"):
        Contexts(path, {"a": replace(PROD, identity=Path("/\udcff"))}).save()
    assert not path.exists()


def test_the_home_of_who_calls_is_written_out_wherever_it_stands(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    chosen = target_of(Options(), settings(path, server="x:1", identity=Path("~/operator")))
    assert chosen.identity == Path("/home/me/operator")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 64, "é"])
def test_a_name_that_no_context_may_have_is_refused(name: str) -> None:
    with pytest.raises(CommandFailed):
        check_name(name)


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, (PROD.server, PROD.identity)),
        ({}, {"context": "test"}, (TEST.server, TEST.identity)),
        ({}, {"server": "env:1"}, ("env:1", PROD.identity)),
        ({}, {"server": "env:1", "context": "test"}, ("env:1", TEST.identity)),
        ({"context": "test"}, {"server": "env:1", "context": "prod"}, (TEST.server, TEST.identity)),
        ({"context": "test", "server": "opt:1"}, {}, ("opt:1", TEST.identity)),
        ({"identity": Path("/own")}, {}, (PROD.server, Path("/own"))),
        ({"data_dir": Path("/d")}, {}, (LOCAL_SERVER, Path("/d/identities/operator-admin"))),
        (
            {"data_dir": Path("/d")},
            {"server": "env:1", "context": "test"},
            ("env:1", Path("/d/identities/operator-admin")),
        ),
    ],
)
def test_what_is_said_nearer_wins(
    contexts: Contexts,
    options: dict[str, object],
    environment: dict[str, object],
    expected: tuple[str, Path],
) -> None:
    chosen = target_of(Options(**options), settings(contexts.path, **environment))  # type: ignore[arg-type]
    assert chosen == Target(*expected)


def test_a_context_and_a_data_folder_are_not_both_followed(contexts: Contexts) -> None:
    with pytest.raises(CommandFailed, match="give one"):
        target_of(Options(context="prod", data_dir=Path("/d")), settings(contexts.path))


def test_last_of_all_the_data_folder_here_is_used_where_it_has_an_administrator(path: Path) -> None:
    with pytest.raises(NoServerNamed):
        target_of(Options(), settings(path))
    here = path.parent / "none" / "identities" / "operator-admin"
    here.mkdir(parents=True)
    assert target_of(Options(), settings(path)) == Target(LOCAL_SERVER, here)


def test_the_file_is_where_the_desktop_says_unless_a_variable_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLEETWRIGHT_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert ClientSettings().config_file == tmp_path / ".config/fleetwright/config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert ClientSettings().config_file == Path("/xdg/fleetwright/config.toml")
    monkeypatch.setenv("FLEETWRIGHT_CONFIG", "/mine.toml")
    assert ClientSettings().config_file == Path("/mine.toml")

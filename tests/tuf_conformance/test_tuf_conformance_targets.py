"""The suite's cases of delegations and of files, by their names there (test_updater_delegation_graphs,
test_delegated_expiration, test_quoting_issues, test_file_download).
"""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.tuf_conformance.simulated import DAY, NOW, Client, Simulated

PY = ["*.py"]
LAST = True
"""A role that lets no other one be asked after it."""

Edge = tuple[str, str, list[str] | None, bool]


def edge(delegator: str, name: str, paths: list[str] | None = None, last: bool = False) -> Edge:
    return delegator, name, paths, last


GRAPHS: dict[str, tuple[list[Edge], str]] = {
    "basic-delegation": ([edge("targets", "A")], "A"),
    "single-level-delegations": ([edge("targets", "A"), edge("targets", "B")], "AB"),
    "two-level-delegations": ([edge("targets", "A"), edge("targets", "B"), edge("B", "C")], "ABC"),
    "two-level-test-DFS-order-of-traversal": (
        [edge("targets", "A"), edge("targets", "B"), edge("A", "C"), edge("A", "D")], "ACDB",
    ),
    "three-level-delegation-test-DFS-order-of-traversal": (
        [edge("targets", "A"), edge("targets", "B"), edge("A", "C"), edge("C", "D")], "ACDB",
    ),
    "two-level-terminating-ignores-all-but-roles-descendants": (
        [edge("targets", "A"), edge("targets", "B"), edge("A", "C", None, LAST), edge("A", "D")], "AC",
    ),
    "three-level-terminating-ignores-all-but-roles-descendants": (
        [edge("targets", "A"), edge("targets", "B"), edge("A", "C", None, LAST), edge("C", "D")], "ACD",
    ),
    "two-level-ignores-all-branches-not-matching-paths": (
        [edge("targets", "A", PY), edge("targets", "B"), edge("A", "C")], "B",
    ),
    "three-level-ignores-all-branches-not-matching-paths": (
        [edge("targets", "A"), edge("targets", "B"), edge("A", "C", PY), edge("C", "D")], "AB",
    ),
    "cyclic-graph": (
        [edge("targets", "A"), edge("targets", "B"), edge("B", "C"), edge("C", "D"), edge("D", "B")], "ABCD",
    ),
    "two-roles-delegating-to-a-third": (
        [edge("targets", "A"), edge("targets", "B"), edge("B", "C"), edge("A", "C")], "ACB",
    ),
    "two-roles-delegating-to-a-third-different-paths": (
        [edge("targets", "A"), edge("targets", "B"), edge("B", "C"), edge("A", "C", PY)], "ABC",
    ),
}  # fmt: skip
"""Who delegates to whom, and in which order a client asks where none of them has the path."""


def delegate(repo: Simulated, edges: list[Edge]) -> None:
    for delegator, name, paths, last in edges:
        repo.delegate(delegator, name, paths=paths, terminating=last)


def publish(repo: Simulated) -> None:
    delegated = [name for name in repo.signed if name not in ("root", "timestamp", "snapshot", "targets")]
    repo.publish(*delegated, "targets", "snapshot", "timestamp")


@pytest.mark.parametrize(("edges", "order"), GRAPHS.values(), ids=GRAPHS)
def test_graph_traversal(repo: Simulated, client: Client, edges: list[Edge], order: str) -> None:
    delegate(repo, edges)
    publish(repo)
    assert client.download("missingpath") == 1
    assert repo.asked[4:] == [(name, 1) for name in order]


@pytest.mark.parametrize(
    ("path", "order", "found"),
    [
        ("targetfile", "", True),
        ("README.md", "A", True),
        ("releases/x/x_v1", "BC", True),
        ("releases/y/y_v1.zip", "BD", True),
        ("releases/z/z_v1.zip", "B", False),
    ],
)
def test_targetfile_search(repo: Simulated, client: Client, path: str, order: str, found: bool) -> None:
    tree = [
        edge("targets", "A", ["*.doc", "*.md"]),
        edge("targets", "B", ["releases/*/*"]),
        edge("B", "C", ["releases/x/*"]),
        edge("B", "D", ["releases/y/*.zip"]),
    ]
    delegate(repo, tree)
    holders = {"targetfile": "targets", "README.md": "A", "releases/x/x_v1": "C"}
    for one in (*holders, "releases/y/y_v1.zip", "releases/z/z_v1.zip"):
        repo.add(holders.get(one, "D"), one, f"content of {one}".encode())
    publish(repo)
    assert client.download(path) == (0 if found else 1)
    assert client.downloaded == ([repo.artefacts[path]] if found else [])
    assert repo.asked[4:] == [(name, 1) for name in order]


def test_cached_role_is_verified_against_current_delegator(repo: Simulated, client: Client) -> None:
    delegate(repo, [edge("targets", "A", ["a/*"]), edge("targets", "B", ["b/*"]), edge("A", "C", ["a/*"])])
    repo.add("C", "a/x", b"of a")
    repo.add("C", "b/x", b"of a thief")
    other = repo.new_signer()
    repo.delegate("B", "C", paths=["b/*"])
    delegations = repo.signed["B"].delegations
    delegations.roles["C"].keyids = [other.public_key.keyid]
    delegations.keys = {other.public_key.keyid: other.public_key}
    publish(repo)
    assert client.download("a/x") == 0
    assert client.download("b/x") == 1
    assert client.downloaded == [b"of a"]


@pytest.mark.parametrize("role", ["?", "#", "/delegatedrole", "../delegatedrole", "%2e%2e", "a b", "ä"])
def test_unusual_role_name(repo: Simulated, client: Client, role: str) -> None:
    repo.delegate("targets", role)
    publish(repo)
    assert client.download("nothing of this name") == 1
    assert (quote(role, safe=""), 1) in repo.asked
    assert len(client.trusted) == 5
    assert {path.name for path in client.folder.iterdir()} <= {"initial_root.json", "metadata", "targets"}


# --- test_delegated_expiration


def expiring(repo: Simulated, days: int) -> None:
    delegated = repo.delegate("targets", "delegated", paths=["delegatedpath/*"])
    delegated.expires = NOW + days * DAY
    repo.add("delegated", "delegatedpath/first", b"first")
    repo.add("delegated", "delegatedpath/second", b"second")
    publish(repo)


def test_delegated_targets_expired(repo: Simulated, client: Client) -> None:
    expiring(repo, -1)
    assert client.refresh() == 0
    assert client.download("delegatedpath/first") == 1
    assert client.downloaded == []
    assert client.trusted == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}


def test_expired_local_delegated_targets_and_updates(repo: Simulated, client: Client) -> None:
    expiring(repo, 7)
    assert client.download("delegatedpath/first") == 0
    client.now = NOW + 18 * DAY
    assert client.download("delegatedpath/second") == 1
    assert client.downloaded == [b"first"]
    repo.signed["delegated"].expires = NOW + 21 * DAY
    repo.publish("delegated", "snapshot", "timestamp")
    assert client.download("delegatedpath/second") == 0
    assert client.downloaded == [b"first", b"second"]


# --- test_file_download


@pytest.mark.parametrize("path", ["target_file.txt", "path/to/a/target_file.txt", "a/b+c~d.tar.gz"])
def test_client_downloads_expected_file(repo: Simulated, client: Client, path: str) -> None:
    repo.add("targets", path, b"target file contents")
    publish(repo)
    assert client.refresh() == 0
    assert client.downloaded == []
    assert client.download(path) == 0
    assert client.downloaded == [b"target file contents"]


def test_artifact_cache(repo: Simulated, client: Client) -> None:
    repo.add("targets", "target_file.txt", b"target file contents")
    publish(repo)
    for _ in range(2):
        assert client.download("target_file.txt") == 0
    assert repo.fetched == ["target_file.txt"]


def test_repository_substitutes_target_file(repo: Simulated, client: Client) -> None:
    repo.add("targets", "one", b"content of one")
    repo.add("targets", "other", b"content of other")
    publish(repo)
    assert client.download("one") == 0
    repo.artefacts.update(one=b"malicious data", other=b"malicious data")
    client.download("one")
    assert client.download("other") == 1
    assert client.downloaded == [b"content of one"]


def test_multiple_changes_to_target(repo: Simulated, client: Client) -> None:
    path = "target_file.txt"
    for number in range(11):
        repo.add("targets", path, f"modified file contents {number}".encode())
        repo.add("targets", f"new-target-{number}", f"new file contents {number}".encode())
        publish(repo)
        if number % 5:
            continue  # The client sees every fifth version only.
        assert client.download(path) == 0
        assert client.download(f"new-target-{number}") == 0
        assert client.downloaded[-2:] == [repo.artefacts[path], repo.artefacts[f"new-target-{number}"]]
        before = client.downloaded
        repo.artefacts[path] = f"malicious contents {number}".encode()
        publish(repo)
        client.download(path)
        assert client.downloaded == before

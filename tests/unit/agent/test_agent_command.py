"""The command line: one clear message, the right exit status, never a traceback, never a secret."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from agent_sim.agent.policy import write_default_policy
from agent_sim.agent.state import StateFolder
from agent_sim.protocol.identity import AgentIdentity, generate_key, key_to_pem
from agent_sim.protocol.identity_folder import FolderIdentityStore

REPOSITORY = Path(__file__).parents[3]
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
TOKEN = f"fwt1.abcdefghijklmnop.{SECRET}." + base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")


def command(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/python'}",
        "COLUMNS": "300",
        **extra,
    }
    done = subprocess.run(
        [sys.executable, "-m", "agent_sim.agent.cli", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


def refused(status: int, words: str, *arguments: str, **extra: str) -> None:
    done = command(*arguments, **extra)
    assert done.returncode == status, done.stderr
    assert words in done.stderr


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """Make a state folder with an identity whose server nobody is."""
    folder = StateFolder(tmp_path / "state")
    folder.make()
    key = generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web-1")])
    now = datetime.now(UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=24))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    identity = AgentIdentity(
        agent_id="web-1",
        spiffe_id="spiffe://fleetwright.local/agent/web-1",
        key_pem=key_to_pem(key),
        chain_pem=pem,
        trust_bundle_pem=pem,
        not_before=now,
        not_after=now + timedelta(hours=24),
        renew_after=now + timedelta(hours=12),
        agent_addresses=("127.0.0.1:1",),
    )
    FolderIdentityStore(folder.path).save(identity)
    return folder


def test_help_teaches_with_examples() -> None:
    top = command("--help")
    assert top.returncode == 0
    assert "fleetwright-agent enroll --server" in top.stdout
    assert "token-file - <" in command("enroll", "--help").stdout


def test_the_version_is_told() -> None:
    done = command("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("fleetwright-agent ")


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--server", ["enroll", "--token", TOKEN]),
        ("FLEETWRIGHT_JOIN_TOKEN", ["enroll", "--server", "localhost"]),
        ("host:port", ["enroll", "--server", "localhost:port", "--token", TOKEN]),
        ("for example web-1", ["enroll", "--server", "localhost", "--token", TOKEN, "--agent-id", "Web_1"]),
        ("not both", ["enroll", "--server", "localhost", "--token", TOKEN, "--token-file", "-"]),
        ("No such file", ["enroll", "--server", "localhost", "--token-file", "/nonexistent/token"]),
        (
            "--agent-address",
            ["enroll", "--server", "localhost", "--token", TOKEN, "--agent-address", "nowhere"],
        ),
        ("is not one of debug", ["run", "--log-level", "loud"]),
    ],
)
def test_a_wrong_argument_is_a_usage_error(words: str, arguments: list[str]) -> None:
    refused(2, words, *arguments)


def test_a_malformed_token_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "state"
    refused(
        1, "copy the whole token again", "enroll", "--server", "x", "--token", SECRET, "--state", str(path)
    )
    assert not path.exists()


def test_a_server_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    arguments = ["enroll", "--server", "127.0.0.1:1", "--state", str(tmp_path / "state")]
    refused(1, "127.0.0.1:1: Connection refused", *arguments, FLEETWRIGHT_JOIN_TOKEN=TOKEN)
    assert not (tmp_path / "state" / "identity.json").exists()


def test_an_identity_is_not_replaced_by_accident(state: StateFolder) -> None:
    arguments = ["enroll", "--server", "127.0.0.1:1", "--token", TOKEN, "--state", str(state.path)]
    refused(1, "--force", *arguments)


def test_running_without_an_identity_says_to_enrol(tmp_path: Path) -> None:
    refused(1, "enrol first", "run", "--state", str(tmp_path / "none"))
    StateFolder(tmp_path / "empty").make()
    refused(1, "enrol first", "run", "--state", str(tmp_path / "empty"))


def test_running_without_a_policy_is_refused(state: StateFolder) -> None:
    refused(1, "no policy file", "run", "--state", str(state.path))


def test_a_misspelt_policy_is_refused_by_its_key(state: StateFolder, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('task_kinds = ["echo"]\n[lgos]\npaths = []\n')
    policy.chmod(0o600)
    refused(1, "lgos: unknown key", "run", "--state", str(state.path), "--policy", str(policy))


def test_a_second_agent_on_one_state_folder_is_refused_with_the_pid(state: StateFolder) -> None:
    write_default_policy(state.policy)
    with state.locked():
        for verb in (["run"], ["enroll", "--server", "127.0.0.1:1", "--token", TOKEN, "--force"]):
            refused(1, f"process {os.getpid()};", *verb, "--state", str(state.path))


def test_status_for_people_and_for_programs(state: StateFolder) -> None:
    table = command("status", "--state", str(state.path))
    assert table.returncode == 0
    assert "spiffe://fleetwright.local/agent/web-1" in table.stdout
    told = json.loads(command("status", "--state", str(state.path), "-o", "json").stdout)
    assert told["agent_id"] == "web-1"
    assert told["certificate"]["serial"] == "abc"
    assert told["certificate"]["expired"] is False
    assert told["journal"] == {"journaled": 0, "running": 0, "finished": 0, "queued_points": 0}
    assert told["running_process"] is None


def test_a_damaged_identity_is_a_failure_in_words(state: StateFolder) -> None:
    (state.path / "identity.json").write_text("{")
    refused(1, "enrol again", "status", "--state", str(state.path))


def test_another_system_is_told_what_is_supported(tmp_path: Path) -> None:
    code = "import sys; sys.platform = 'win32'; from agent_sim.agent.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto/python'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "runs on Linux" in done.stderr

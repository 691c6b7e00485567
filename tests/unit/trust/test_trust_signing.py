"""Keys in files, and what they sign."""

from __future__ import annotations

import base64
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fleetwright.verify import statements as reading
from fleetwright.verify.documents import canonical
from fleetwright.verify.envelopes import PAYLOAD_TYPE, parse_envelope
from fleetwright.verify.errors import BadSignature, Malformed, UnknownKey
from fleetwright.verify.predicates import Provenance, Sbom, Scan, ScanFinding
from fleetwright.verify.verdicts import Decision, Verdict
from hypothesis import given
from hypothesis import strategies as st

from controlplane.trust import dsse, statements
from controlplane.trust.dsse import SigningRefused
from controlplane.trust.keys import KeyFileError, SigningKey, load_key
from tests.unit.verify.evidence_world import (
    AN_EXCEPTION,
    NOW,
    provenance,
    sbom,
    scan,
    sha,
    subject,
    verdict,
)

PASSPHRASE = "correct horse battery staple"
KEY = SigningKey.generate()
OTHER = SigningKey.generate()


def test_a_key_is_read_back_from_its_private_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "one.pem"
    KEY.write(path)
    assert load_key(path).key_id == KEY.key_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_key_with_a_passphrase_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "one.pem"
    KEY.write(path, PASSPHRASE)
    assert b"ENCRYPTED" in path.read_bytes()
    assert load_key(path, PASSPHRASE).key_id == KEY.key_id


@pytest.mark.parametrize(
    ("written", "given_", "why"),
    [
        (PASSPHRASE, None, "encrypted, and no passphrase was given"),
        (PASSPHRASE, "another passphrase", "the passphrase is another one"),
        (None, PASSPHRASE, "not encrypted, and a passphrase was given"),
    ],
)
def test_the_wrong_passphrase_is_said_so(
    tmp_path: Path, written: str | None, given_: str | None, why: str
) -> None:
    path = tmp_path / "one.pem"
    KEY.write(path, written)
    with pytest.raises(KeyFileError, match=why) as raised:
        load_key(path, given_)
    assert PASSPHRASE not in str(raised.value)


def test_a_short_passphrase_protects_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="shorter than 12"):
        KEY.write(tmp_path / "one.pem", "short")
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    KEY.write(tmp_path / "one.pem")
    with pytest.raises(KeyFileError, match="exists already"):
        OTHER.write(tmp_path / "one.pem")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.pem"
    KEY.write(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode 0640"):
        load_key(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 100_000],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"one\.pem"):
        load_key(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not an Ed25519 key"):
        load_key(path)


def test_a_missing_key_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        load_key(tmp_path / "none.pem")
    os.mkfifo(tmp_path / "fifo.pem", 0o600)
    with pytest.raises(KeyFileError, match="no key's file"):
        load_key(tmp_path / "fifo.pem")


def test_nothing_shows_a_private_key(tmp_path: Path) -> None:
    KEY.write(tmp_path / "one.pem")
    secret = KEY._private.private_bytes_raw().hex()
    assert secret not in repr(KEY) + str(KEY) + repr([KEY])
    with pytest.raises(TypeError, match="goes nowhere"):
        pickle.dumps(KEY)


def test_signing_twice_gives_the_same_bytes() -> None:
    assert dsse.sign(provenance(), [KEY, OTHER]) == dsse.sign(provenance(), [KEY, OTHER])


def test_a_signature_is_over_type_and_payload_as_dsse_says() -> None:
    payload = provenance()
    document = json.loads(dsse.sign(payload, [KEY]))
    encoded = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(KEY.public.public))
    signature = base64.b64decode(document["signatures"][0]["sig"])
    verifier.verify(signature, encoded)
    with pytest.raises(InvalidSignature):
        verifier.verify(signature, payload)
    assert base64.b64decode(document["payload"]) == payload


def test_as_many_signatures_as_are_needed_are_asked_for() -> None:
    envelope = dsse.sign(provenance(), [KEY, OTHER])
    third = SigningKey.generate()
    assert dsse.verify(envelope, [KEY.public, OTHER.public], 2).payload == provenance()
    with pytest.raises(BadSignature, match="1 good signatures, where 2"):
        dsse.verify(envelope, [KEY.public, third.public], 2)
    with pytest.raises(UnknownKey):
        dsse.verify(envelope, [third.public])


def test_one_key_under_two_names_counts_once() -> None:
    document = json.loads(dsse.sign(provenance(), [KEY]))
    document["signatures"].append({**document["signatures"][0], "keyid": "another"})
    with pytest.raises(BadSignature, match="1 good"):
        dsse.verify(canonical(document), [KEY.public, OTHER.public], 2)


def changed(**changes: object) -> bytes:
    return canonical({**json.loads(dsse.sign(provenance(), [KEY])), **changes})


@pytest.mark.parametrize(
    ("envelope", "why"),
    [
        (changed(payloadType="text/plain"), "payloadType: 'text/plain'"),
        (changed(payload="!!"), "payload is not base64"),
        (changed(payload=5), "payload: a text is expected"),
        (changed(signatures=[{"keyid": "a", "sig": "?"}]), "sig is not base64"),
        (changed(signatures=[{"sig": "AA=="}]), "keyid: missing"),
        (changed(signatures=[{"keyid": "a", "sig": ""}] * 2), "stands there twice"),
        (changed(signatures=[{"keyid": str(n), "sig": ""} for n in range(17)]), "17 items"),
        (b"{}", "payloadType: missing"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_bad_envelopes_say_why(envelope: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_envelope(envelope)


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 64, b"\xff" * 64, b"\0" * 65])
def test_bytes_that_are_no_signature_are_none(signature: bytes) -> None:
    envelope = changed(signatures=[{"keyid": KEY.key_id, "sig": base64.b64encode(signature).decode()}])
    with pytest.raises(BadSignature):
        dsse.verify(envelope, [KEY.public])


def test_what_must_not_be_signed_is_refused() -> None:
    for keys in ([], [KEY, KEY], [SigningKey.generate() for _ in range(17)]):
        with pytest.raises(SigningRefused):
            dsse.sign(provenance(), keys)
    with pytest.raises(Malformed):
        dsse.sign(b"{}", [KEY])


def read_back(payload: bytes) -> reading.Predicate:
    statement = reading.parse_statement(payload)
    assert statement.is_about(sha(b"package"))
    return statement.read()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(text=TEXT, score=st.none() | st.floats(0, 10), severity=st.sampled_from(["critical", "unknown"]))
def test_a_scan_is_read_back_as_it_was_written(text: str, score: float | None, severity: str) -> None:
    finding = ScanFinding(text, "pkg:a/b@1", severity, "affected", (text,), ("trivy",), score, text)
    payload = scan(
        b"envelope", b"package", findings=(finding,), not_covered=("RPM",), engines={"trivy": text}
    )
    found = read_back(payload)
    assert isinstance(found, Scan)
    assert found.findings == (finding,)
    assert found.counts[severity] == 1
    assert payload == scan(
        b"envelope", b"package", findings=(finding,), not_covered=("RPM",), engines={"trivy": text}
    )


@pytest.mark.parametrize("decision", Decision)
def test_a_verdict_is_read_back_as_it_was_written(decision: Decision) -> None:
    exceptions = (AN_EXCEPTION,) if decision is Decision.EXCEPTION else ()
    payload = verdict((b"one", b"two"), b"package", decision=decision, exceptions=exceptions)
    found = read_back(payload)
    assert isinstance(found, Verdict)
    assert (found.decision, found.inputs, found.exceptions) == (
        decision,
        (sha(b"one"), sha(b"two")),
        exceptions,
    )
    plain = json.loads(payload)["predicate"]
    assert plain["verificationResult"] == ("FAILED" if decision is Decision.FAIL else "PASSED")


def test_provenance_and_sboms_are_read_back() -> None:
    built = read_back(provenance(b"package"))
    assert isinstance(built, Provenance)
    assert built.materials[0].name == "curl"
    document = {"spdxVersion": "SPDX-2.3", "packages": [{"name": "itself"}, {"name": "zlib"}]}
    assert read_back(statements.spdx([subject(b"package")], document)) == Sbom("SPDX", "2.3", 1)
    assert read_back(sbom(b"package")) == Sbom("CycloneDX", "1.6", 1)


@pytest.mark.parametrize(
    "write",
    [
        lambda: statements.cyclonedx([subject(b"package")], {"bomFormat": "SPDX"}),
        lambda: statements.spdx([subject(b"package")], {"spdxVersion": "SPDX-3.0", "packages": []}),
        lambda: statements.cyclonedx([], {"bomFormat": "CycloneDX", "specVersion": "1.6"}),
        lambda: statements.statement([subject(b"package")], "https://example.org/other", {}),
        lambda: scan(b"envelope", covered=2),
        lambda: scan(b"envelope", findings=(ScanFinding("a", "b", "moderate", "affected"),)),
        lambda: scan(b"zz", advisories="zz"),
        lambda: verdict((), decision=Decision.EXCEPTION),
        lambda: verdict((), decision=Decision.PASS, exceptions=(AN_EXCEPTION,)),
        lambda: verdict((), decision=Decision.EXCEPTION, exceptions=(replace(AN_EXCEPTION, expires=NOW),)),
    ],
)
def test_what_no_agent_would_take_is_not_written(write: object) -> None:
    with pytest.raises(Malformed):
        write()  # type: ignore[operator]


def test_counts_that_are_not_those_of_the_findings_are_refused() -> None:
    document = json.loads(scan(b"envelope"))
    document["predicate"]["counts"]["critical"] = 3
    with pytest.raises(Malformed, match="3, where 0 such are listed"):
        reading.parse_statement(canonical(document)).read()


@pytest.mark.parametrize(
    ("field", "value"),
    [("verificationResult", "FAILED"), ("verifiedLevels", []), ("fleetwright_decision", "MAYBE")],
)
def test_a_verdict_that_contradicts_itself_is_refused(field: str, value: object) -> None:
    document = json.loads(verdict(()))
    document["predicate"][field] = value
    with pytest.raises(Malformed, match=field):
        reading.parse_statement(canonical(document)).read()

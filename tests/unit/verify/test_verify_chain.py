"""The chain of evidence: which attestations let a package pass, and which do not."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from fleetwright.verify.chain import read_evidence, verify_attestations
from fleetwright.verify.documents import canonical
from fleetwright.verify.keys import AttestationKeys, Purpose, parse_keys
from fleetwright.verify.predicates import Material, ScanFinding
from fleetwright.verify.reports import Check, Outcome
from fleetwright.verify.verdicts import Decision
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.trust import dsse
from controlplane.trust.keys import SigningKey
from tests.unit.verify.evidence_world import (
    AN_EXCEPTION,
    ARTEFACT,
    DAY,
    NOW,
    PACKAGE,
    attested,
    ceremony,
    key,
    provenance,
    sbom,
    scan,
    sha,
    signed,
    verdict,
)

KEYS = parse_keys(ceremony().online.key_document)
GOOD = attested()


def judged(lines: bytes, package: bytes = PACKAGE, keys: AttestationKeys | None = KEYS) -> dict[str, Check]:
    checks = verify_attestations(sha(package), lines, keys, NOW)
    assert [check.name for check in checks] == ["signature", "provenance", "sbom", "scan", "verdict"]
    return {check.name: check for check in checks}


def wrong(lines: bytes, **more: object) -> dict[str, str]:
    """Return the details of the checks that do not hold, by name; a missing one is marked."""
    found = judged(lines, **more)  # type: ignore[arg-type]
    return {
        name: f"MISSING {check.detail}" if check.outcome is Outcome.MISSING else check.detail
        for name, check in found.items()
        if check.outcome is not Outcome.OK
    }


def with_verdict(**changes: object) -> bytes:
    inputs = (GOOD.provenance, GOOD.sbom, GOOD.scan)
    return replace(GOOD, verdict=signed(verdict(inputs, **changes), Purpose.VERDICT)).lines  # type: ignore[arg-type]


def test_complete_evidence_holds() -> None:
    assert wrong(GOOD.lines) == {}
    details = {name: check.detail for name, check in judged(GOOD.lines).items()}
    assert "from 1 materials" in details["provenance"]
    assert "CycloneDX 1.6 with 1 components" in details["sbom"]
    assert "0 critical, 0 high, 0 medium, 1 low" in details["scan"]
    assert details["verdict"].startswith("PASS by policies/default/3")


def test_an_exception_holds_and_says_who_allowed_it() -> None:
    lines = with_verdict(decision=Decision.EXCEPTION, exceptions=(AN_EXCEPTION,))
    assert wrong(lines) == {}
    assert "CVE-2029-1 allowed by operator/ada" in judged(lines)["verdict"].detail


def test_attestations_of_another_package_say_nothing_of_this_one() -> None:
    found = wrong(GOOD.lines, package=b"other bytes")
    assert set(found) == {"provenance", "sbom", "scan", "verdict"}
    assert all("and not about" in detail for detail in found.values())


def test_a_digest_that_is_a_material_only_is_not_the_package() -> None:
    found = wrong(GOOD.lines, package=ARTEFACT)
    assert "as a material only" in found["provenance"]


@pytest.mark.parametrize("name", ["provenance", "sbom", "scan", "verdict"])
def test_each_missing_kind_is_named(name: str) -> None:
    lines = [line for kind, line in vars_of(GOOD).items() if kind != name]
    found = wrong(b"\n".join(lines))
    assert found[name].startswith(f"MISSING no {name}")
    assert "signature" not in found


def vars_of(made: object) -> dict[str, bytes]:
    return {name: getattr(made, name) for name in ("provenance", "sbom", "scan", "verdict")}


def test_no_attestations_at_all_are_missing() -> None:
    assert all(detail.startswith("MISSING") for detail in wrong(b"\n\n").values())


@pytest.mark.parametrize("name", ["provenance", "sbom", "scan", "verdict"])
def test_a_key_for_another_purpose_attests_nothing(name: str) -> None:
    payloads = {
        "provenance": provenance(),
        "sbom": sbom(),
        "scan": scan(GOOD.sbom),
        "verdict": verdict((GOOD.provenance, GOOD.sbom, GOOD.scan)),
    }
    other = Purpose.SBOM if name != "sbom" else Purpose.SCAN
    found = wrong(replace(GOOD, **{name: signed(payloads[name], other)}).lines)
    assert f"which may attest {other.value} only" in found["signature"]
    assert "not signed by a key that may attest it" in found[name]


def test_an_unknown_key_attests_nothing() -> None:
    forged = dsse.sign(verdict((GOOD.provenance, GOOD.sbom, GOOD.scan)), [SigningKey.generate()])
    found = wrong(replace(GOOD, verdict=forged).lines)
    assert "by none of the keys" in found["signature"]
    assert "verdict" in found


def test_a_key_past_its_time_attests_nothing_more() -> None:
    old = AttestationKeys(1, tuple(replace(attester, expires=NOW) for attester in KEYS.attesters))
    found = wrong(GOOD.lines, keys=old)
    assert found["signature"].count("whose time is over") == 4


def test_changed_content_is_not_what_was_signed() -> None:
    document = json.loads(GOOD.verdict)
    document["payload"] = json.loads(signed(verdict((), expires=NOW + 900 * DAY), Purpose.VERDICT))["payload"]
    found = wrong(replace(GOOD, verdict=canonical(document)).lines)
    assert "the content was changed" in found["signature"]


def test_without_keys_everything_is_named_and_nothing_trusted() -> None:
    found = wrong(replace(GOOD, scan=b"").lines, keys=None)
    assert set(found) == {"signature", "provenance", "sbom", "scan", "verdict"}
    assert found["scan"].startswith("MISSING")


def test_a_scan_of_another_sbom_does_not_hold() -> None:
    other = signed(scan(b"another envelope"), Purpose.SCAN)
    judge = signed(verdict((GOOD.provenance, GOOD.sbom, other)), Purpose.VERDICT)
    found = wrong(replace(GOOD, scan=other, verdict=judge).lines)
    assert "which is not among the trusted attestations" in found["scan"]


def test_a_verdict_on_another_package_does_not_hold() -> None:
    other = signed(verdict((GOOD.provenance, GOOD.sbom, GOOD.scan), b"another"), Purpose.VERDICT)
    assert "and not about" in wrong(replace(GOOD, verdict=other).lines)["verdict"]


def test_a_verdict_of_fail_does_not_hold() -> None:
    assert "policy decided FAIL" in wrong(with_verdict(decision=Decision.FAIL))["verdict"]


def test_a_verdict_past_its_end_does_not_hold() -> None:
    assert "have the package judged again" in wrong(with_verdict(expires=NOW))["verdict"]


def test_a_verdict_from_the_future_does_not_hold() -> None:
    lines = with_verdict(verified=NOW + timedelta(hours=1), expires=NOW + DAY)
    assert "set this machine's clock" in wrong(lines)["verdict"]


def test_a_verdict_from_other_evidence_does_not_hold() -> None:
    judge = signed(verdict((GOOD.provenance, GOOD.sbom)), Purpose.VERDICT)
    assert "not made from the newest scan" in wrong(replace(GOOD, verdict=judge).lines)["verdict"]


def test_the_newest_verdict_counts() -> None:
    failed = with_verdict(decision=Decision.FAIL, verified=NOW - timedelta(minutes=1)).splitlines()[-1]
    assert "FAIL" in wrong(GOOD.lines + failed)["verdict"]


def test_of_two_verdicts_of_one_time_the_worse_counts() -> None:
    failed = with_verdict(decision=Decision.FAIL).splitlines()[-1]
    assert "FAIL" in wrong(GOOD.lines + failed)["verdict"]
    assert "FAIL" in wrong(failed + b"\n" + GOOD.lines)["verdict"]


def test_a_newer_scan_makes_an_older_verdict_void() -> None:
    worse = (ScanFinding("CVE-2029-2", "pkg:deb/debian/zlib@1", "critical", "affected"),)
    rescan = signed(scan(GOOD.sbom, scanned=NOW, findings=worse), Purpose.SCAN)
    assert "not made from the newest scan" in wrong(GOOD.lines + rescan)["verdict"]


def test_other_types_are_passed_over() -> None:
    other = canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "", "digest": {"sha256": sha(PACKAGE)}}],
            "predicateType": "https://example.org/approval/v1",
            "predicate": {},
        }
    )
    lines = GOOD.lines + dsse_of(other)
    assert wrong(lines) == {}
    assert "1 of other types passed over" in judged(lines)["signature"].detail


def dsse_of(payload: bytes) -> bytes:
    return canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [],
        }
    )


def test_what_cannot_be_read_is_named_by_its_place() -> None:
    found = wrong(GOOD.lines + b"{not json}\n")
    assert found["signature"].startswith("attestation 5: not readable as JSON")
    assert set(found) == {"signature"}


def test_too_many_attestations_are_not_read() -> None:
    found = wrong(b"{}\n" * 300)
    assert "more than 256 attestations" in found["signature"]


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=60), at=st.integers(0, 20_000), cut=st.integers(0, 200))
def test_garbage_never_raises_and_never_passes_as_another(noise: bytes, at: int, cut: int) -> None:
    lines = GOOD.lines
    place = at % len(lines)
    broken = lines[:place] + noise + lines[place + cut :]
    checks = verify_attestations(sha(PACKAGE), broken, KEYS, NOW)
    said = [item.statement.predicate.value for item in read_evidence(lines, KEYS, NOW).read]
    trusted = [item for item in read_evidence(broken, KEYS, NOW).read if item.trusted]
    assert all(item.statement.predicate.value in said for item in trusted)
    assert len(checks) == 5


@given(st.binary(max_size=400))
def test_any_bytes_are_judged(lines: bytes) -> None:
    assert not all(
        check.outcome is Outcome.OK for check in verify_attestations(sha(PACKAGE), lines, KEYS, NOW)
    )


def test_materials_without_a_digest_are_read() -> None:
    built = signed(
        provenance(materials=(Material("base", "https://example.org/base", ""),)), Purpose.PROVENANCE
    )
    judge = signed(verdict((built, GOOD.sbom, GOOD.scan)), Purpose.VERDICT)
    assert wrong(replace(GOOD, provenance=built, verdict=judge).lines) == {}


def test_two_signers_of_one_statement_are_both_looked_at() -> None:
    payload = provenance()
    both = dsse.sign(payload, [SigningKey.generate(), key(Purpose.PROVENANCE)])
    judge = signed(verdict((both, GOOD.sbom, GOOD.scan)), Purpose.VERDICT)
    assert wrong(replace(GOOD, provenance=both, verdict=judge).lines) == {}

"""One spelling of an id, for those who issue certificates and for those who read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.callers import IdentityKind, is_name, read_spiffe_id, write_spiffe_id

DOMAIN = "fleetwright.local"
KINDS = [IdentityKind.AGENT, IdentityKind.OPERATOR, IdentityKind.INTEGRATOR]
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(st.sampled_from(KINDS), NAMES)
def test_a_spiffe_id_reads_back_as_it_was_written(kind: IdentityKind, name: str) -> None:
    assert is_name(name)
    assert read_spiffe_id(write_spiffe_id(DOMAIN, kind, name), DOMAIN) == (kind, name)


@given(st.sampled_from(KINDS), st.text(max_size=70))
def test_what_is_no_name_makes_no_id(kind: IdentityKind, name: str) -> None:
    assert (read_spiffe_id(write_spiffe_id(DOMAIN, kind, name), DOMAIN) is not None) == is_name(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Ada", "ada.l", "ada_l", "-ada", "ada-", "a" * 64, "", "ada\n"])
def test_names_follow_the_same_rule_for_every_kind(kind: IdentityKind, name: str) -> None:
    assert not is_name(name)
    assert read_spiffe_id(write_spiffe_id(DOMAIN, kind, name), DOMAIN) is None


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://elsewhere.example/agent/a",
        f"spiffe://{DOMAIN}.elsewhere.example/agent/a",
        f"spiffe://user@{DOMAIN}/agent/a",
        f"spiffe://{DOMAIN}:443/agent/a",
        f"SPIFFE://{DOMAIN}/agent/a",
        f"https://{DOMAIN}/agent/a",
        f"spiffe://{DOMAIN}/agent/",
        f"spiffe://{DOMAIN}/agent/a/b",
        f"spiffe://{DOMAIN}/agent/a\n",
        f"spiffe://{DOMAIN}/agent/A",
        f"spiffe://{DOMAIN}/agent/-a",
        f"spiffe://{DOMAIN}/agent/a?b",
        f"spiffe://{DOMAIN}/agent/a#b",
        f"spiffe://{DOMAIN}/agent/%61",
        f"spiffe://{DOMAIN}//agent/a",
        f"spiffe://{DOMAIN}/anonymous/a",
        f"spiffe://{DOMAIN}/agent/{'a' * 64}",
    ],
)
def test_anything_else_is_no_id_of_ours(uri: str) -> None:
    assert read_spiffe_id(uri, DOMAIN) is None

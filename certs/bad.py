"""Every client certificate that a door must refuse, each by the name of what is wrong with it.

Each constructor breaks one thing and keeps the rest good, so that a test that sees a refusal knows why.
`root` is the root that the server trusts; `role` and `name` say who the certificate claims to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import (
    BACKDATE,
    CLIENT_LIFE,
    DEFAULT_TRUST_DOMAIN,
    Identity,
    PrivateKey,
    Root,
    issue,
    issue_client,
    make_root,
    spiffe_id,
    weak_key,
)

OTHER_TRUST_DOMAIN = "elsewhere.example"
_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


def wrong_root(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """Good in all but its signer: a root of the same name as the trusted one, with another key."""
    impostor = make_root(_common_name_of(root), now=now)
    return issue_client(impostor, role, name, now=now, trust_domain=trust_domain)


def expired(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """Good until an hour ago."""
    return _bent(
        root,
        name,
        [spiffe_id(role, name, trust_domain)],
        not_before=now - timedelta(hours=2),
        not_after=now - timedelta(hours=1),
    )


def not_yet_valid(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """Good from an hour from now."""
    return _bent(
        root,
        name,
        [spiffe_id(role, name, trust_domain)],
        not_before=now + timedelta(hours=1),
        not_after=now + timedelta(hours=2),
    )


def wrong_usage(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """A server's extended key usage (serverAuth alone) on a client."""
    return _bent(
        root,
        name,
        [spiffe_id(role, name, trust_domain)],
        not_before=now - BACKDATE,
        not_after=now + CLIENT_LIFE,
        usages=(ExtendedKeyUsageOID.SERVER_AUTH,),
    )


def two_uri_sans(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """Two SPIFFE ids, each good alone: it says that it is two (X509-SVID, section 2, allows one)."""
    uris = [spiffe_id(role, name, trust_domain), spiffe_id(role, "another", trust_domain)]
    return _bent(root, name, uris, not_before=now - BACKDATE, not_after=now + CLIENT_LIFE)


def no_uri_san(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """No SPIFFE id; the common name is the claimed one, which nothing may authorise on."""
    spiffe_id(role, name, trust_domain)  # refuses the same arguments as its neighbours
    return _bent(root, name, [], not_before=now - BACKDATE, not_after=now + CLIENT_LIFE)


def another_trust_domain(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """The SPIFFE id of a foreign trust domain, signed by the trusted root."""
    foreign = OTHER_TRUST_DOMAIN if trust_domain != OTHER_TRUST_DOMAIN else f"not.{OTHER_TRUST_DOMAIN}"
    return issue_client(root, role, name, now=now, trust_domain=foreign)


def weak_rsa_key(
    root: Root, role: str, name: str, *, now: datetime, trust_domain: str = DEFAULT_TRUST_DOMAIN
) -> Identity:
    """An RSA key of 1,024 bits, of which NIST SP 800-131A has disallowed signatures since 2014."""
    return _bent(
        root,
        name,
        [spiffe_id(role, name, trust_domain)],
        not_before=now - BACKDATE,
        not_after=now + CLIENT_LIFE,
        key=weak_key(1024),
    )


# The same constructors by the names that the command and parametrised tests use.
BAD_CERTIFICATES: MappingProxyType[str, Callable[..., Identity]] = MappingProxyType(
    {
        "wrong-root": wrong_root,
        "expired": expired,
        "not-yet-valid": not_yet_valid,
        "wrong-usage": wrong_usage,
        "two-uri-sans": two_uri_sans,
        "no-uri-san": no_uri_san,
        "another-trust-domain": another_trust_domain,
        "weak-key": weak_rsa_key,
    }
)


def _bent(
    root: Root,
    name: str,
    uris: Iterable[str],
    *,
    not_before: datetime,
    not_after: datetime,
    usages: Iterable[x509.ObjectIdentifier] = _CLIENT,
    key: PrivateKey | None = None,
) -> Identity:
    return issue(
        root,
        common_name=name,
        names=[x509.UniformResourceIdentifier(uri) for uri in uris],
        usages=usages,
        not_before=not_before,
        not_after=not_after,
        key=key,
    )


def _common_name_of(root: Root) -> str:
    [attribute] = root.certificate.subject
    return str(attribute.value)

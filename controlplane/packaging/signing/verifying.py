"""Asking another implementation about the signature in a .deb: debsig-verify where it is, else gpgv.

sqv is not asked: it stands on the same library that signs here, and would repeat its mistakes.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from pysequoia import Sig

from controlplane.packaging.building import ar
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.signing.gpgorigin import MAX_SIGNATURE, MEMBER, signed_content
from controlplane.packaging.signing.keys import certificate_of
from controlplane.packaging.signing.states import SignatureState, SigningFailed, Verification

TIMEOUT_SECONDS: Final = 120
"""A hash of 10 GB and a signature."""
_NOT_RUN: Final = 1_000
"""In the place of an exit status, which is less: there was none."""
_SHA512: Final = "10"
"""The number of SHA-512 in OpenPGP (RFC 4880, 9.4)."""
_KEYRING: Final = "origin.gpg"
_DEBSIG_KEYRING: Final = "debsig.gpg"

Which = Callable[[str], str | None]


def verify_deb(
    path: Path, certificate: str, debsig_keyring: bytes = b"", *, which: Which = shutil.which
) -> Verification:
    """Return what another implementation says of the signature in a .deb, made with this armored
    certificate.

    ``debsig_keyring`` is ``OriginKey.debsig_keyring``; without it debsig-verify is not asked.
    ``which`` finds programs, as ``shutil.which`` does. Never raises for what a .deb holds: that is FAILED,
    with the reason.
    """
    try:
        public = bytes(certificate_of(certificate))
        with path.open("rb") as stream, tempfile.TemporaryDirectory(prefix="verifying-") as folder:
            members = ar.members(stream)
            signature = next((one for one in members if one.name == MEMBER), None)
            if signature is None:
                return _failed("", f"has no member {MEMBER}")
            (Path(folder) / "sig").write_bytes(ar.read_content(stream, signature, MAX_SIGNATURE))
            (Path(folder) / _KEYRING).write_bytes(public)
            (Path(folder) / _DEBSIG_KEYRING).write_bytes(debsig_keyring)
            with signed_content(stream, members, None) as content:
                return _asked(path, content, Path(folder), certificate, which)
    except (BuildFailed, SigningFailed) as error:
        return _failed("", str(error))
    except OSError as error:
        return _failed("", f"{path.name} cannot be read: {error.strerror}")


def _asked(deb: Path, content: Path, folder: Path, certificate: str, which: Which) -> Verification:
    gpgv = which("gpgv")
    debsig = which("debsig-verify") if (folder / _DEBSIG_KEYRING).stat().st_size else None
    if gpgv is None and debsig is None:
        reason = "neither debsig-verify nor gpgv is installed here: apt-get install gpgv"
        return Verification(SignatureState.SIGNED_UNVERIFIED, reason=reason)
    found = [
        *([_by_debsig(debsig, deb, folder)] if debsig else []),
        # What debsig-verify does not look at: the hash, and that the key is ours by its whole fingerprint.
        *([_by_gpgv(gpgv, content, folder, certificate)] if gpgv else []),
    ]
    bad = next((one for one in found if one.state is not SignatureState.SIGNED_VERIFIED), None)
    return bad or Verification(SignatureState.SIGNED_VERIFIED, ", ".join(one.tool for one in found))


def _by_gpgv(gpgv: str, content: Path, folder: Path, certificate: str) -> Verification:
    tool = _version(gpgv)
    arguments = [gpgv, "--homedir", str(folder), "--keyring", str(folder / _KEYRING), "--status-fd", "1"]
    code, output, errors = _run([*arguments, str(folder / "sig"), str(content)], folder)
    if code == _NOT_RUN:
        return _not_run(tool, errors)
    lines = [line.split() for line in output.splitlines() if line.startswith("[GNUPG:] ")]
    valid = [line for line in lines if line[1:2] == ["VALIDSIG"]]
    if code != 0 or len(valid) != 1 or len(valid[0]) < 12:
        said = [line[1] for line in lines if line[1:2] and line[1] in _GPGV_WORDS]
        return _failed(tool, f"gpgv does not find it good: {', '.join(said) or f'it ended with {code}'}")
    if valid[0][9] != _SHA512:
        return _failed(tool, f"the signature is by hash {valid[0][9]} of OpenPGP, not by SHA-512")
    if valid[0][-1].lower() != certificate_of(certificate).fingerprint:
        return _failed(tool, f"the signature is by the key {valid[0][-1]}")
    return Verification(SignatureState.SIGNED_VERIFIED, tool)


_GPGV_WORDS: Final = frozenset(
    {
        "BADSIG",
        "ERRSIG",
        "NO_PUBKEY",
        "EXPKEYSIG",
        "EXPSIG",
        "REVKEYSIG",
        "NODATA",
        "KEYEXPIRED",
        "UNEXPECTED",
    }
)


def _by_debsig(debsig: str, deb: Path, folder: Path) -> Verification:
    tool = _version(debsig)
    try:
        issuer = Sig.from_file(str(folder / "sig"))
        names = [issuer.issuer_fingerprint, issuer.issuer_key_id]
    except Exception as error:  # noqa: BLE001 - pysequoia raises plain Exception for what is no signature
        return _failed(tool, f"the member {MEMBER} is no OpenPGP signature: {error}")
    last = _failed(tool, f"the signature in {MEMBER} does not name its key")
    # Newer ones look up the policy by the fingerprint, older ones by the key id.
    for name in (one.upper() for one in names if one):
        policies, keyrings = _policy(folder, name)
        places = ["--policies-dir", str(policies), "--keyrings-dir", str(keyrings)]
        code, *output = _run([debsig, "-d", *places, str(deb.resolve())], folder)
        if code == 0:
            return Verification(SignatureState.SIGNED_VERIFIED, tool)
        if code == _NOT_RUN:
            return _not_run(tool, output[1])
        last = _failed(tool, f"debsig-verify ended with {code}: {' '.join(' '.join(output).split())[-300:]}")
    return last


def _policy(folder: Path, name: str) -> tuple[Path, Path]:
    policies, keyrings = folder / "policies", folder / "keyrings"
    for place in (policies / name, keyrings / name):
        place.mkdir(parents=True, exist_ok=True)
    (policies / name / "origin.pol").write_text(debsig_policy(name), encoding="utf-8")
    shutil.copy(folder / _DEBSIG_KEYRING, keyrings / name / _KEYRING)
    return policies, keyrings


def debsig_policy(name: str) -> str:
    """Return the policy by which debsig-verify accepts what the key ``name`` signed.

    ``name`` is ``DebSignature.signing_key`` in capitals; an endpoint has it as
    ``/etc/debsig/policies/<name>/origin.pol``, and the keyring as
    ``/usr/share/debsig/keyrings/<name>/origin.gpg``.
    """
    rule = f'<Required Type="origin" File={quoteattr(_KEYRING)}/>'
    return (
        '<?xml version="1.0"?>\n'
        '<!DOCTYPE Policy SYSTEM "https://www.debian.org/debsig/1.0/policy.dtd">\n'
        '<Policy xmlns="https://www.debian.org/debsig/1.0/">\n'
        f'  <Origin Name="fleetwright" id={quoteattr(name)} Description="packages of this control plane"/>\n'
        f"  <Selection>{rule}</Selection>\n"
        f'  <Verification MinOptional="0">{rule}</Verification>\n'
        "</Policy>\n"
    )


def _version(program: str) -> str:
    code, output, _ = _run([program, "--version"], Path(program).parent)
    lines = output.splitlines()
    return lines[0].strip()[:80] if code == 0 and lines else Path(program).name


def _run(arguments: Sequence[str], home: Path) -> tuple[int, str, str]:
    """Return the exit status, the output and the errors of a program that sees no environment of ours."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "GNUPGHOME": str(home),
        # debsig-verify makes a folder there; in isolation there is no /tmp.
        "TMPDIR": tempfile.gettempdir(),
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            list(arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _NOT_RUN, "", f"{type(error).__name__}: {error}"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def _not_run(tool: str, why: str) -> Verification:
    """Not found good, for a program that is there and cannot be asked is no reason to do without it."""
    return _failed(tool, f"could not be run, which says nothing of the signature: {why[:300]}; try again")


def _failed(tool: str, reason: str) -> Verification:
    return Verification(SignatureState.FAILED, tool, reason)

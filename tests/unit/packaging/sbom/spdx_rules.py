"""The rules of SPDX 2.3 for JSON documents that ours must keep, checked by hand.

By clause: 6.1 version, 6.2 data licence, 6.3 identifier, 6.4 name, 6.5 namespace, 6.8 and 6.9 creators and
time; for packages 7.1 name, 7.2 identifier, 7.7 download location, 7.8 and 7.9 files analysed and
verification code, 7.10 checksums, 7.15 licence, 7.21 external references; for files 8.1 name, 8.2 identifier,
8.4 checksums with a SHA-1; 10.1 and 10.2 licences of their own; 11.1 relationships between elements that
exist; 12 annotations; and, from the JSON schema, that no object has a field that the schema does not know.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

ID = re.compile(r"SPDXRef-[A-Za-z0-9.-]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ACTOR = re.compile(r"(Tool: \S.*|Person: .+|Organization: .+)")
DIGITS = {"SHA1": 40, "SHA256": 64}
RELATIONSHIPS = {"DESCRIBES", "CONTAINS", "DEPENDS_ON", "OPTIONAL_DEPENDENCY_OF", "DEV_DEPENDENCY_OF"}
FIELDS = {
    "document": "SPDXID creationInfo dataLicense documentNamespace files hasExtractedLicensingInfos name "
    "packages relationships spdxVersion",
    "package": "SPDXID annotations checksums copyrightText downloadLocation externalRefs filesAnalyzed "
    "licenseConcluded licenseDeclared name packageVerificationCode versionInfo",
    "file": "SPDXID checksums copyrightText fileName licenseConcluded licenseInfoInFiles",
    "relationship": "spdxElementId relatedSpdxElement relationshipType comment",
    "licence": "licenseId extractedText name",
    "annotation": "annotationDate annotationType annotator comment",
}


def broken_rules(document: Mapping[str, Any]) -> list[str]:
    """Return every rule that a document breaks, in words."""
    return [*_document(document), *_packages(document), *_files(document), *_relationships(document)]


def _unknown(kind: str, fields: Mapping[str, Any]) -> Iterator[str]:
    for field in sorted(set(fields) - set(FIELDS[kind].split())):
        yield f"{kind} has the field {field}"


def _document(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown("document", document)
    if document["spdxVersion"] != "SPDX-2.3" or document["dataLicense"] != "CC0-1.0":
        yield "6.1, 6.2: version or data licence"
    if document["SPDXID"] != "SPDXRef-DOCUMENT" or not document["name"]:
        yield "6.3, 6.4: identifier or name"
    if (
        not re.fullmatch(r"https://[!-~]+", document["documentNamespace"])
        or "#" in document["documentNamespace"]
    ):
        yield "6.5: the namespace is an absolute URI without '#'"
    information = document["creationInfo"]
    if not TIME.fullmatch(information["created"]) or set(information) != {"created", "creators"}:
        yield "6.9: time of creation"
    if not information["creators"] or not all(ACTOR.fullmatch(one) for one in information["creators"]):
        yield "6.8: creators"
    ids = [one["SPDXID"] for one in [document, *document["packages"], *document["files"]]]
    if len(ids) != len(set(ids)) or not all(ID.fullmatch(one) for one in ids):
        yield "7.2, 8.2: identifiers are unique, of letters, digits, '.' and '-'"
    for info in document.get("hasExtractedLicensingInfos", ()):
        yield from _unknown("licence", info)
        if not re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", info["licenseId"]) or not info["extractedText"]:
            yield "10.1, 10.2: extracted licences"


def _packages(document: Mapping[str, Any]) -> Iterator[str]:
    contained = _contained(document)
    own = {info["licenseId"] for info in document.get("hasExtractedLicensingInfos", ())}
    for package in document["packages"]:
        yield from _unknown("package", package)
        if not package["name"] or package["downloadLocation"] != "NOASSERTION":
            yield "7.1, 7.7: name and download location"
        yield from _checksums(package.get("checksums", ()))
        yield from _verification(package, contained.get(package["SPDXID"], []))
        yield from _licence(package["licenseDeclared"], own)
        for reference in package.get("externalRefs", ()):
            if set(reference) != {"referenceCategory", "referenceType", "referenceLocator"} or " " in str(
                reference["referenceLocator"]
            ):
                yield "7.21: external references"
        for annotation in package.get("annotations", ()):
            yield from _unknown("annotation", annotation)
            if not TIME.fullmatch(annotation["annotationDate"]) or annotation["annotationType"] not in (
                "OTHER",
                "REVIEW",
            ):
                yield "12: annotations"


def _contained(document: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    sha1 = {
        file["SPDXID"]: next(one["checksumValue"] for one in file["checksums"] if one["algorithm"] == "SHA1")
        for file in document["files"]
    }
    contained: dict[str, list[str]] = {}
    for relation in document["relationships"]:
        if relation["relationshipType"] == "CONTAINS" and relation["relatedSpdxElement"] in sha1:
            contained.setdefault(relation["spdxElementId"], []).append(sha1[relation["relatedSpdxElement"]])
    return contained


def _verification(package: Mapping[str, Any], digests: Sequence[str]) -> Iterator[str]:
    code = package.get("packageVerificationCode")
    if not package["filesAnalyzed"]:
        if digests or code:
            yield "7.8: a package whose files were not analysed contains none and has no verification code"
        return
    expected = hashlib.sha1("".join(sorted(digests)).encode()).hexdigest()
    if code != {"packageVerificationCodeValue": expected}:
        yield "7.9: verification code over the files that the package contains"


def _licence(stated: str, own: set[str]) -> Iterator[str]:
    if stated == "NOASSERTION":
        return
    try:
        canonicalize_license_expression(stated)
    except InvalidLicenseExpression:
        yield f"7.15: {stated!r} is no licence expression"
    if set(re.findall(r"LicenseRef-[A-Za-z0-9.-]+", stated)) - own:
        yield f"10.1: {stated!r} refers to a licence that the document does not have"


def _checksums(checksums: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for one in checksums:
        if not re.fullmatch(f"[0-9a-f]{{{DIGITS[one['algorithm']]}}}", one["checksumValue"]):
            yield "7.10, 8.4: checksums are lower-case hexadecimal of their length"


def _files(document: Mapping[str, Any]) -> Iterator[str]:
    for file in document["files"]:
        yield from _unknown("file", file)
        yield from _checksums(file["checksums"])
        if not file["fileName"].startswith("./"):
            yield "8.1: names are relative to the root of the package"
        if "SHA1" not in {one["algorithm"] for one in file["checksums"]}:
            yield "8.4: every file has a SHA-1"


def _relationships(document: Mapping[str, Any]) -> Iterator[str]:
    ids = {one["SPDXID"] for one in [document, *document["packages"], *document["files"]]}
    if not any(one["relationshipType"] == "DESCRIBES" for one in document["relationships"]):
        yield "11.1: a document describes something"
    for relation in document["relationships"]:
        yield from _unknown("relationship", relation)
        if relation["relationshipType"] not in RELATIONSHIPS:
            yield "11.1: type of relationship"
        if relation["spdxElementId"] not in ids or relation["relatedSpdxElement"] not in ids | {
            "NOASSERTION"
        }:
            yield "11.1: relationships are between elements of the document"

"""Package URLs: the specification's examples, properties, and agreement with its reference implementation."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from packageurl import PackageURL

from controlplane.packaging.sbom.ecosystems import component_name, ecosystem_of
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.purls import Purl, format_purl, make_purl, parse_purl

TYPES = ("pypi", "npm", "golang", "maven", "deb", "rpm", "generic")

printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
segment = printable.filter(lambda text: "/" not in text and text not in (".", ".."))
names = printable.filter(lambda text: bool(text.strip("/").strip("-_.")))
keys = st.from_regex(r"[a-z][a-z0-9._-]{0,5}", fullmatch=True)


@st.composite
def purls(draw: st.DrawFn) -> Purl:
    type_ = draw(st.sampled_from(TYPES))
    return make_purl(
        type_,
        draw(names),
        draw(st.just("") | printable),
        namespace="" if type_ == "pypi" else "/".join(draw(st.lists(segment, max_size=3))),
        qualifiers=draw(st.dictionaries(keys, printable, max_size=3)),
        subpath="/".join(draw(st.lists(segment, max_size=2))),
    )


@given(purls())
def test_what_was_formatted_is_parsed_to_the_same(purl: Purl) -> None:
    assert parse_purl(format_purl(purl)) == purl


@given(purls())
def test_the_canonical_form_is_ascii_and_stays_as_it_is(purl: Purl) -> None:
    text = str(purl)
    assert text.isascii()
    assert str(parse_purl(text)) == text


@given(purls())
def test_the_reference_implementation_reads_the_same_parts(purl: Purl) -> None:
    # It reads "a:" as the scheme of a URL, and does not keep a "/" within a name apart from a separator.
    assume(not {":", "/"} & {*purl.name, *purl.version, *purl.namespace.replace("/", "")})
    other = PackageURL.from_string(str(purl))
    assert (other.type, other.version or "") == (purl.type, purl.version)
    assert dict(other.qualifiers) == dict(purl.qualifiers)
    assert other.to_string().lower() == str(purl).lower()


@given(st.text(max_size=60) | st.text("pkg:/@?#%&=aA1.-", max_size=40).map("pkg:".__add__))
def test_any_text_is_a_package_url_or_refused(text: str) -> None:
    try:
        purl = parse_purl(text)
    except BadMetadata as error:
        assert error.member == "purl"  # noqa: PT017 # either end is right, and this is what one of them promises
    else:
        assert parse_purl(str(purl)) == purl


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("pkg:PYPI/Django_package@1.11.1.dev1", "pkg:pypi/django-package@1.11.1.dev1"),
        ("pkg:pypi/Zope.Interface@5.0", "pkg:pypi/zope-interface@5.0"),
        ("pkg:npm/%40Angular/animation@12.3.1", "pkg:npm/%40angular/animation@12.3.1"),
        ("pkg:npm/@babel/core#/googleapis/annotations/", "pkg:npm/%40babel/core#googleapis/annotations"),
        ("pkg:deb/debian/attr@1:2.4.47-2+b1?arch=amd64", "pkg:deb/debian/attr@1:2.4.47-2%2Bb1?arch=amd64"),
        ("pkg:GOLANG/google.golang.org/genproto#/a/b/", "pkg:golang/google.golang.org/genproto#a/b"),
        ("pkg://golang/github.com/gorilla/context@234fd4", "pkg:golang/github.com/gorilla/context@234fd4"),
        ("pkg:maven/org.apache.xmlgraphics/batik-anim@1.9.1?repositorY_url=repo.example/r&classifier=sources",
         "pkg:maven/org.apache.xmlgraphics/batik-anim@1.9.1?classifier=sources&repository_url=repo.example/r"),
        ("pkg:rpm/Fedora/curl@7.50.3-1.fc25?distro=fedora-25&arch=i386",
         "pkg:rpm/fedora/curl@7.50.3-1.fc25?arch=i386&distro=fedora-25"),
        ("pkg:generic/a%20b@1?x=", "pkg:generic/a%20b@1"),
    ],
)  # fmt: skip
def test_every_allowed_form_has_one_canonical_form(text: str, canonical: str) -> None:
    assert str(parse_purl(text)) == canonical


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "does not begin with 'pkg:'"),
        ("pypi/django", "does not begin with 'pkg:'"),
        ("pkg:npm", "name of a package URL is empty"),
        ("pkg:npm/", "name of a package URL is empty"),
        ("pkg:EMPTY%20/name", "type"),
        ("pkg:npm/a@1?in%20production=true", "qualifier"),
        ("pkg:npm/a@1?x=1&X=2", "given twice"),
        ("pkg:npm/a@%zz", "hexadecimal"),
        ("pkg:npm/a@%ff", "UTF-8"),
        ("pkg:npm/a@1%00", "cannot be printed"),
        ("pkg:maven/a%2Fb/c@1", "encoded '/'"),
        ("pkg:npm/" + "a" * 5_000, "characters, more than"),
    ],
)
def test_what_is_no_package_url_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(BadMetadata, match=complaint):
        parse_purl(text)


def test_go_modules_keep_their_case_because_advisories_are_filed_under_it() -> None:
    assert str(parse_purl("pkg:golang/github.com/BurntSushi/toml@v1.0.0")).count("BurntSushi") == 1


@pytest.mark.parametrize(
    ("text", "ecosystem", "name"),
    [
        ("pkg:pypi/Foo_Bar@1", "PyPI", "foo-bar"),
        ("pkg:npm/%40a/b@1", "npm", "@a/b"),
        ("pkg:maven/g.h/a@1", "Maven", "g.h:a"),
        ("pkg:golang/golang.org/x/net@v0.1.0", "Go", "golang.org/x/net"),
        ("pkg:deb/debian/curl@1", "Debian", "curl"),
        ("pkg:deb/debian/curl@1?distro=bookworm", "Debian:12", "curl"),
        ("pkg:deb/debian/curl@1?distro=debian-12.5", "Debian:12", "curl"),
        ("pkg:deb/ubuntu/curl@1?distro=ubuntu-22.04", "Ubuntu:22.04:LTS", "curl"),
        ("pkg:deb/ubuntu/curl@1?distro=ubuntu-23.10", "Ubuntu:23.10", "curl"),
        ("pkg:rpm/almalinux/curl@1?distro=almalinux-9.3", "AlmaLinux:9", "curl"),
        ("pkg:rpm/rocky/curl@1?distro=rocky-8", "Rocky Linux:8", "curl"),
        ("pkg:rpm/fedora/curl@1", "RPM", "curl"),
        ("pkg:generic/curl@1", "", "curl"),
    ],
)
def test_the_ecosystem_and_name_are_those_of_advisories(text: str, ecosystem: str, name: str) -> None:
    purl = parse_purl(text)
    assert (ecosystem_of(purl), component_name(purl)) == (ecosystem, name)

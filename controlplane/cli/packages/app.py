"""The group of the verbs; each module beside this one adds its own."""

from __future__ import annotations

from controlplane.cli.calling import noun

app = noun(
    "From an artefact to agents: upload, build, pipelines, watch, log, execute, cancel, retry, list, show, "
    "findings, download, export, verify, deploy, deployments, exceptions.\n\n"
    "An artefact goes in: a wheel, an sdist, an npm tarball, a jar, a deb, an archive or one binary. A "
    "pipeline makes a package of it in seven stages (intake, build, sign, sbom, scan, policy, store), which "
    "ends PASSED, EXCEPTED or REFUSED. Agents can have what passed or has an exception, and verify the "
    "evidence themselves.\n\n"
    "\b\nExample, from a file to a fleet:\n"
    "  fleetwright packages build ./curl_8.1_amd64.deb --wait\n"
    "  fleetwright packages show curl\n"
    "  fleetwright packages deploy curl --to 'groups:canary' --wait\n\n"
    "\b\nWhere policy refuses it:\n"
    "  fleetwright packages findings curl\n"
    "  fleetwright packages exceptions create curl CVE-2029-1 --for 30d --reason 'no network here'"
)

exceptions_app = noun(
    "Vulnerabilities that shall not block a package for a time: create, approve, revoke, list.\n\n"
    "An exception is of one package, by its bytes, and of one vulnerability. Somebody asks for it and "
    "somebody else approves it; it ends by itself, and the package is judged again then.\n\n"
    "\b\nExamples:\n"
    "  fleetwright packages exceptions create curl CVE-2029-1 --for 30d --reason 'no network here'\n"
    "  fleetwright packages exceptions approve exceptions/NAME"
)
app.add_typer(exceptions_app, name="exceptions")

"""The factory: an artefact goes in; a package that is built, signed, listed, scanned and judged comes out.

Here live pipelines and their seven stages (one file each under ``stages/``), the readers of foreign formats
(``archives/``), what is known of a package (``sbom/``), what is known against it (``advisories/``), the
rules that judge it (``policy/``), the store of its bytes and the deployments to agents. What reads bytes
that others made runs in a subprocess of ``isolation/`` and never in the server itself. Keys, DSSE and TUF
are in ``controlplane/trust``; work for agents goes through the room of tasks.
"""

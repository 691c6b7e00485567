"""Trivy as a second engine: asked about the same components by the same advisories, where it is installed.

It gets a database of its own form, made on the spot of the entries that the scan looks at, so that what it
says otherwise is about matching and never about who knows more. It is an untrusted process: isolated, without
network, its program pinned. Where it is absent or fails that is said, and the scan is our engine's alone.
"""

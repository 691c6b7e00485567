"""What is known against components: advisories in OSV's form, kept, compared, matched and explained.

Here live the comparison of versions by each ecosystem's own rules (``versions/``), the reading of OSV records
and OpenVEX documents, the decision whether a record affects a version, severities, the merging of aliases,
the import of exports into the store, and the scan of an inventory. Nothing here asks a network, and a scan
over missing, stale or rolled-back advisories is an error, never an empty result. What to do about a finding
is for the policy.
"""

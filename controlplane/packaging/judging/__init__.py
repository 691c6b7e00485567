"""From a package to the decision that stands on it: what is known is scanned, judged, signed and committed.

The stages SCAN and POLICY come through here once; judging again, at every import and when exceptions end,
comes through here for as long as the package is kept. Nothing is released or withdrawn here.
"""

from __future__ import annotations

from controlplane.packaging.judging.attesting import Attesting
from controlplane.packaging.judging.scanner import Scanner
from controlplane.packaging.judging.second_engine import SecondEngine, TrivyEngine
from controlplane.packaging.judging.service import Concluded, Judging
from controlplane.packaging.judging.subjects import JudgingFailed, Scan, ScanFacts, Subject, Terms

__all__ = [
    "Attesting",
    "Concluded",
    "Judging",
    "JudgingFailed",
    "Scan",
    "ScanFacts",
    "Scanner",
    "SecondEngine",
    "Subject",
    "Terms",
    "TrivyEngine",
]

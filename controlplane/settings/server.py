"""The settings of a server: those of the site, and those of the factory of packages."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from controlplane.settings.kinds import DAY, HOUR, MINUTE, Duration, between
from controlplane.settings.site import SiteSettings

Fact = Literal[
    "uid",
    "network",
    "memory",
    "cpu",
    "files",
    "processes",
    "no_new_privs",
    "environment",
    "capabilities",
    "descriptors",
    "filesystem",
    "descendants",
    "system_calls",
]
"""What can be denied to a job on foreign bytes."""


class Settings(SiteSettings):
    """What an operator may set. Raises ``pydantic.ValidationError``; ``explain`` puts that into words."""

    packages_dir: Path | None = Field(
        default=None,
        description="Folder of uploads, artefacts and packages: one for all servers of a site. packages/ in"
        " the data folder where empty.",
    )
    scratch_dir: Path | None = Field(
        default=None,
        description="Folder on this machine's own disk for what pipelines and imports unpack. scratch/ in the"
        " data folder where empty; where the server is root and cannot make mounts, the users of jobs have to"
        " be able to go through the folders above.",
    )
    artefact_bytes: int = Field(
        default=2 * 1024**3,
        ge=1,
        le=16 * 1024**3,
        description="Size of the largest artefact that is taken in, in bytes.",
    )
    advisories_bytes: int = Field(
        default=1024**3,
        ge=1,
        le=4 * 1024**3,
        description="Size of the largest export of advisories that is taken in, in bytes.",
    )
    upload_time: Duration = between(
        DAY, MINUTE, 30 * DAY, "An upload that is not complete by then is thrown away."
    )
    default_channel: str = Field(
        default="stable",
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="Channel that packages are released to where a pipeline names none.",
    )
    advisory_max_age: Duration = between(
        7 * DAY,
        HOUR,
        3650 * DAY,
        "Advisories of an ecosystem whose newest record is older are stale: a scan that needs them fails.",
    )
    policy_file: Path | None = Field(
        default=None,
        description="File of the policy that packages are judged by, YAML; the built-in one where empty.",
    )
    trivy_program: Path | None = Field(
        default=None,
        description="Program of Trivy, the second engine of scans; with it, no scan is made without its"
        " answer. None where empty.",
    )
    trivy_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 of that program; another one is never run.",
    )
    packages_sweep: Duration = between(
        MINUTE,
        timedelta(milliseconds=50),
        HOUR,
        "How often packages are judged again that are due, and what is released is kept current.",
    )
    download_rate: int = Field(
        default=64 * 1024**2,
        ge=0,
        le=100 * 1024**3,
        description="Bytes of packages that one process sends its agents in a second, at most; 0 for no"
        " limit.",
    )
    max_downloads: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Downloads of agents that may go on in one process at a time; others are told to come"
        " later.",
    )
    isolation_uid: int = Field(
        default=65534,
        ge=1,
        le=2**31 - 1,
        description="First user that jobs on foreign bytes run as, where the server is root.",
    )
    isolation_gid: int = Field(
        default=65534,
        ge=1,
        le=2**31 - 1,
        description="Group that those jobs run as, where the server is root.",
    )
    isolation_uids: int = Field(
        default=1,
        ge=1,
        le=65_536,
        description="Users, from isolation_uid on, that those jobs are spread over.",
    )
    isolation_require: Annotated[tuple[Fact, ...], NoDecode] = Field(
        default=(),
        description="Facts of isolation without which no such job runs, separated by commas, for example"
        " `network,uid`; docs/operations.md lists them.",
    )

    @field_validator("isolation_require", mode="before")
    @classmethod
    def _split_facts(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(filter(None, (part.strip() for part in value.split(","))))
        return value

    @property
    def packages_folder(self) -> Path:
        """Folder of uploads, artefacts and packages."""
        return self.packages_dir or self.data_dir / "packages"

    @property
    def scratch_folder(self) -> Path:
        """Folder for what pipelines and imports unpack."""
        return self.scratch_dir or self.data_dir / "scratch"

"""The settings of the ``fleetwright`` command as a client."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ClientSettings(BaseSettings):
    """What the ``fleetwright`` command, as a client, takes from the environment where no option says it."""

    model_config = SettingsConfigDict(env_prefix="FLEETWRIGHT_", frozen=True, env_ignore_empty=True)

    server: str | None = Field(default=None, description="HOST:PORT of the server's port for administrators.")
    identity: Path | None = Field(
        default=None, description="Folder with key.pem, cert.pem and ca.pem of who calls."
    )
    context: str | None = Field(default=None, description="Name of the context to use.")
    config: Path | None = Field(
        default=None,
        description="File of the contexts; without it, fleetwright/config.toml in XDG_CONFIG_HOME or"
        " ~/.config.",
    )
    data_dir: Path = Field(
        default=Path("fleetwright-data"),
        description="Data folder of a server on this machine; where nothing else is said, its first"
        " administrator calls.",
    )
    xdg_config_home: Path | None = Field(default=None, validation_alias="XDG_CONFIG_HOME")

    @property
    def config_file(self) -> Path:
        """The file of the contexts; it need not exist."""
        if self.config is not None:
            return self.config
        try:
            home = Path.home()
        except RuntimeError:  # a user without a home, as in many containers
            home = Path()
        return (self.xdg_config_home or home / ".config") / "fleetwright" / "config.toml"

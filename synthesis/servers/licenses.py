"""Under which licence a server stands: what its entry states, else what its Python package declares."""

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from synthesis.servers.mcp_config import ServerConfig

NAME_CHARS = 60
"""A longer `License` field holds the licence's text, not its name."""


def licenses_of(servers: Iterable[ServerConfig]) -> dict[str, str]:
    """Name of the server -> licence, of those where one is known."""
    found = {server.name: server.rise.license or _of_package(Path(server.command)) for server in servers}
    return {name: license for name, license in found.items() if license}


def _of_package(command: Path) -> str:
    """The licence of the package that installed `command` into its virtual environment; empty where there is none."""
    if not command.is_absolute():  # found by PATH, e.g. uvx: its packages are elsewhere
        return ""
    folders = [str(path) for path in command.parent.parent.glob("lib/python3*/site-packages")]
    return next((_declared(found) for found in distributions(path=folders) if _installs(found, command.name)), "")


def _installs(package: Distribution, script: str) -> bool:
    return any(point.group == "console_scripts" and point.name == script for point in package.entry_points)


def _declared(package: Distribution) -> str:
    """SPDX expression, else the `License` field, else the classifier, as the package's metadata has them."""
    fields = package.metadata
    classifiers = [line for line in fields.get_all("Classifier") or [] if line.startswith("License :: ")]
    named = [line.rsplit(" :: ", 1)[-1] for line in classifiers]
    stated = [line for key in ("License-Expression", "License") for line in fields.get_all(key) or []]
    short = [line.strip() for line in stated if len(line.strip()) <= NAME_CHARS and "\n" not in line.strip()]
    return next((name for name in [*short, *named] if name and name != "UNKNOWN"), "")

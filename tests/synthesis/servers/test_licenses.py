"""The licence of a server: stated in its entry, or declared by the Python package that installed its command."""

import json
from pathlib import Path

import pytest

from synthesis.servers.licenses import licenses_of
from synthesis.servers.mcp_config import load_servers


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment's folder, without packages."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    return folder


def install(environment: Path, script: str, metadata: str) -> None:
    """What an installer leaves of a package with one command."""
    info = environment / "lib" / "python3.11" / "site-packages" / f"{script}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {script}\nVersion: 1.0\n{metadata}\n")
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{script} = {script}:main\n")
    (environment / "bin" / script).touch()


def test_licences_come_from_the_entry_or_the_package(environment: Path) -> None:
    install(environment, "one", "License-Expression: Apache-2.0\nLicense: ignored")
    install(environment, "two", "License: MIT License\nClassifier: License :: OSI Approved :: MIT License")
    install(environment, "three", "License: UNKNOWN\nClassifier: License :: OSI Approved :: BSD License")
    install(environment, "four", "License: " + "Permission is hereby granted " * 20)
    entries = {name: {"command": f"venv/bin/{name}"} for name in ("one", "two", "three", "four", "absent")}
    entries |= {"stated": {"command": "venv/bin/one", "rise": {"license": "ISC"}}, "anywhere": {"command": "uvx"}}
    path = environment.parent / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {**entries, "remote": {"url": "https://example.org/mcp"}}}))
    found = licenses_of(load_servers(path).servers)
    assert found == {"one": "Apache-2.0", "two": "MIT License", "three": "BSD License", "stated": "ISC"}

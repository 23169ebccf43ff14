"""Servers files of the shipped servers, and what a run left."""

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny"
SERVERS = ("time", "calculator", "sqlite")


def servers_file(folder: Path, **more: Any) -> Path:
    """Some of the shipped servers, the quick ones, with paths that hold from anywhere."""
    shipped = json.loads((TINY / "mcp.json").read_text())
    entries = {name: shipped["mcpServers"][name] for name in SERVERS}
    for entry in entries.values():
        entry["command"] = str(TINY / entry["command"])
    sandbox = {name: str(TINY / path) for name, path in shipped["rise"]["sandbox"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {**entries, **more}, "rise": {"sandbox": sandbox}}))
    return path


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

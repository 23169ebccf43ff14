"""What must not leave this machine: secrets, and paths that only mean something here."""

import json
import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from synthesis.records import Json
from synthesis.servers.mcp_config import ServerConfig

SECRETS = {
    "a Hugging Face token": r"\b(hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,})",
    "an OpenAI or Anthropic key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "an AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret": r"(?i)aws_?(secret_?access_?key|session_?token)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+=]{40,}",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "a Stripe key": r"\b[rs]k_(live|test)_[A-Za-z0-9]{16,}",
    "a token of a package index": r"\b(pypi-[A-Za-z0-9_-]{50,}|npm_[A-Za-z0-9]{36})",
    "a signed token (JWT)": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a bearer token": r"(?i)authorization[\"']?\s*[=:]\s*[\"']?(bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s:@\"'{$<]{3,}@",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----",
}
NAMED = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
"""Environment variables whose values are secrets."""
LOCAL = re.compile(r"(?<![\w.:/~-])/(home|root|Users|tmp|private|mnt|var|opt)(/[\w.@-]+)+")
VOCABULARIES = {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"}
"""Files whose entries are pieces of any text: `/home/` may well be a token, so only exact folders are looked for."""


@dataclass(frozen=True)
class Leak:
    """One finding. `excerpt` does not show a secret beyond its first characters."""

    file: str
    what: str
    excerpt: str


def find_leaks(folder: Path, places: list[str], servers: Iterable[ServerConfig] = ()) -> list[Leak]:
    """Search the text files of a folder, and the metadata of its safetensors.

    Args:
        folder: what is about to be published.
        places: folders of this machine whose paths must not occur.
        servers: their `${VAR}` values, headers and `env` values must not occur, encoded forms included.
    """
    leaks = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        text = _text_of(path)
        name = path.relative_to(folder).as_posix()
        leaks += [Leak(name, what, f"{secret[:6]}...") for what, secret in _secrets(text)]
        told = [server.name for server in servers if server.redact(text) != text]
        leaks += [Leak(name, f"a secret of the server {server!r}", "<secret>") for server in told]
        leaks += [Leak(name, "a path of this machine", place) for place in places if len(place) > 5 and place in text]
        match = None if path.name in VOCABULARIES else LOCAL.search(text)
        leaks += [Leak(name, "a path of some machine", match[0])] if match else []
    return leaks


def _secrets(text: str) -> list[tuple[str, str]]:
    found = [(what, match[0]) for what, rule in SECRETS.items() if (match := re.search(rule, text))]
    kept = {key: value for key, value in os.environ.items() if NAMED.search(key) and len(value) >= 12}
    return found + [(f"the value of ${key}", value) for key, value in kept.items() if value in text]


def _text_of(path: Path) -> str:
    if path.suffix != ".safetensors":
        return path.read_bytes().decode(errors="replace")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Json] = json.loads(file.read(length))
    return json.dumps(header.get("__metadata__", {}))


def portable(content: Json, places: dict[str, str]) -> Json:
    """`content` (text, or JSON of any depth) with the folders `places` replaced by what they stand for.

    What is still an absolute path of a user's or temporary folder is cut down to its last part.
    """
    if isinstance(content, str):
        for place, name in places.items():
            content = content.replace(place, name)
        return LOCAL.sub(lambda match: match[0].rsplit("/", 1)[-1], content)
    if isinstance(content, list):
        return [portable(item, places) for item in content]
    if isinstance(content, dict):
        return {portable(key, places): portable(value, places) for key, value in content.items()}
    return content

"""A stand-in for the Hub: as much of its HTTP protocol as huggingface_hub sends when it uploads and downloads models.

Repositories live in memory. Large files arrive by git-lfs (batch, upload, verify) or by Xet (token, xorbs, shard), as
the client likes, and count under the SHA-256 of their bytes; a commit that names a large file which never arrived is
refused; the card's YAML is checked. Faults are set from outside: a token without rights, a name that is taken, a
connection that dies in between.
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from xet import files_of, unpack

LARGE = (".safetensors", ".bin")
WRITER = "hf_" + "w" * 20
READER = "hf_" + "r" * 20


@dataclass
class Repo:
    """One repository: what its only branch holds."""

    kind: str = "model"
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    """Messages, the first one first."""

    @property
    def sha(self) -> str:
        """Hash of the branch's head."""
        return hashlib.sha1(repr((self.commits, sorted(self.files))).encode()).hexdigest()


@dataclass
class Hub:
    """All that the stand-in holds, and the faults that it is told to have."""

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """Contents of large files, by SHA-256."""
    xorbs: dict[str, list[bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    dies_after: int | None = None
    """Bytes of large files after which every connection breaks off, until it is set to None again."""
    lock: Lock = field(default_factory=Lock)

    def add(self, name: str, files: dict[str, bytes], *, kind: str = "model", private: bool = False) -> None:
        """Put a repository there."""
        self.repos[name] = Repo(kind, private, dict(files), ["initial"])


@contextmanager
def serve() -> Iterator[Hub]:
    """A running stand-in on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield hub
        server.shutdown()


class _RefusedError(Exception):
    """An answer other than 200: status, message, and the Hub's code for it."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    body: bytes
    protocol_version = "HTTP/1.1"
    routes = (
        ("POST", r"/api/repos/create", "_create"),
        ("POST", r"/api/validate-yaml", "_validate"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/main", "_preupload"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/commit/main", "_commit"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "_store"),
        ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", "_verify"),
        ("GET", r"/lfs/(?P<oid>[0-9a-f]{64})", "_fetch"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/xet-write-token/main", "_token_for_xet"),
        ("POST", r"/v1/xorbs/default/(?P<xorb>[0-9a-f]{64})", "_take_xorb"),
        ("POST", r"/v1/shards", "_take_shard"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)(/revision/[^/]+)?", "_info"),
        ("GET", r"/api/models/(?P<name>[^/]+/[^/]+)/tree/[^/]+", "_tree"),
        ("(GET|HEAD)", r"/(?P<name>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)", "_resolve"),
    )

    def _serve(self) -> None:
        place = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {place}")
        try:
            self.body = self._read()
            for method, pattern, name in self.routes:
                match = re.fullmatch(pattern, place)
                if match and re.fullmatch(method, self.command):
                    getattr(self, name)(**{key: value for key, value in match.groupdict().items() if value})
                    return
            raise _RefusedError(404, "no such page", "EntryNotFound")
        except _RefusedError as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": str(refused)}
            self._answer(refused.body, refused.status, {k: v for k, v in headers.items() if v})
        except ConnectionResetError:
            self.close_connection = True
            self.connection.close()

    def do_GET(self) -> None:
        """Answer."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._serve()

    def do_POST(self) -> None:
        """Answer."""
        self._serve()

    def do_PUT(self) -> None:
        """Answer."""
        self._serve()

    def _read(self) -> bytes:
        """The request's body, which comes whole or in chunks; the connection dies within it where it is told to."""
        body = b""
        if self.hub.dies_after is not None and self.hub.dies_after <= 0:
            raise ConnectionResetError
        for part in self._parts():
            body += part
            if self._is_large() and self.hub.dies_after is not None:
                with self.hub.lock:
                    self.hub.dies_after -= len(part)
                if self.hub.dies_after <= 0:
                    raise ConnectionResetError
        return body

    def _is_large(self) -> bool:
        return self.command == "PUT" or self.path.startswith("/v1/xorbs/")

    def _parts(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left:
                yield self.rfile.read(min(left, 4096))
                left -= min(left, 4096)

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _writes(self) -> None:
        """Refuse whoever may not write."""
        if self._token() not in (WRITER, READER):
            raise _RefusedError(401, "Invalid username or password.")
        if self._token() == READER:
            raise _RefusedError(403, "You don't have the rights to write to this namespace")

    def _repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or repo.kind != "model" or (repo.private and not self._token()):
            raise _RefusedError(401, "Repository not found", "RepoNotFound")
        return repo

    def _create(self) -> None:
        self._writes()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        repo = self.hub.repos.get(name)
        if repo is not None:
            prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
            raise _RefusedError(
                409, f"You already created this {repo.kind} repo", url=f"{self.hub.address}/{prefix}{name}"
            )
        self.hub.repos[name] = Repo(private=asked.get("visibility") == "private")
        self._answer({"url": f"{self.hub.address}/{name}", "name": name, "id": name})

    def _validate(self) -> None:
        """The rules of a card's header that matter here: an object; results that name task, dataset and metrics."""
        content = json.loads(self.body)["content"]
        header = yaml.safe_load(content.split("---\n")[1])
        errors = [] if isinstance(header, dict) else [{"message": "metadata should be an object"}]
        for model in header.get("model-index", []):
            for found in model["results"]:
                whole = found["task"]["type"] and found["dataset"]["type"] and found["dataset"]["name"]
                if not whole or not all("type" in metric and "value" in metric for metric in found["metrics"]):
                    errors.append({"message": '"model-index[0].results[0]" is not whole'})
        self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _preupload(self, name: str) -> None:
        repo = self._repo(name)
        self._writes()
        files = json.loads(self.body)["files"]
        self._answer({"files": [{**_mode(repo, file["path"]), "shouldIgnore": False} for file in files]})

    def _batch(self, name: str) -> None:
        self._repo(name)
        self._writes()
        asked = json.loads(self.body)
        assert (asked["operation"], asked["hash_algo"]) == ("upload", "sha256")
        self._answer({"transfer": "basic", "objects": [self._action(one) for one in asked["objects"]]})

    def _action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        there = f"{self.hub.address}/lfs/{wanted['oid']}"
        actions = {"upload": {"href": there}, "verify": {"href": f"{there}/verify"}}
        return wanted if wanted["oid"] in self.hub.large else {**wanted, "actions": actions}

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusedError(400, "the content does not have this hash")
        self.hub.large[oid] = self.body
        self._answer({})

    def _verify(self, oid: str) -> None:
        asked = json.loads(self.body)
        if len(self.hub.large.get(oid, b"")) != asked["size"]:
            raise _RefusedError(404, "not there")
        self._answer({})

    def _token_for_xet(self, name: str) -> None:
        self._repo(name)
        self._writes()
        self._answer({"casUrl": self.hub.address, "accessToken": WRITER, "exp": int(time.time()) + 3600})

    def _take_xorb(self, xorb: str) -> None:
        self._writes()
        self.hub.xorbs[xorb] = unpack(self.body)
        self._answer({"was_inserted": True})

    def _take_shard(self) -> None:
        self._writes()
        for content in files_of(self.body, self.hub.xorbs):
            self.hub.large[hashlib.sha256(content).hexdigest()] = content
        self._answer({"result": 1})

    def _commit(self, name: str) -> None:
        repo = self._repo(name)
        self._writes()
        header, *changes = [json.loads(line) for line in self.body.splitlines()]
        files = dict(repo.files)
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _RefusedError(400, f"{value['path']}: this large file was never uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                assert change["key"] == "deletedFile"
                del files[value["path"]]
        repo.files = files
        repo.commits.append(header["value"]["summary"])
        self._answer({"commitUrl": f"{self.hub.address}/{name}/commit/{repo.sha}", "commitOid": repo.sha})

    def _info(self, name: str) -> None:
        repo = self._repo(name)
        files = [{"rfilename": path} for path in repo.files]
        self._answer({"id": name, "private": repo.private, "sha": repo.sha, "siblings": files})

    def _tree(self, name: str) -> None:
        self._answer([_entry(path, content) for path, content in self._repo(name).files.items()])

    def _resolve(self, name: str, path: str) -> None:
        repo = self._repo(name)
        about = {"X-Repo-Commit": repo.sha}
        if path not in repo.files:
            raise _RefusedError(404, "Entry not found", "EntryNotFound")
        entry, content = _entry(path, repo.files[path]), repo.files[path]
        if "lfs" in entry:
            oid = entry["lfs"]["oid"]
            self.hub.large[oid] = content
            about |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            elsewhere = self.hub.address.replace("127.0.0.1", "localhost")  # the Hub's large files are on another host
            self._answer(b"", 302, {**about, "Location": f"{elsewhere}/lfs/{oid}"})
        else:
            self._answer(content, 200, {**about, "ETag": f'"{entry["oid"]}"'})

    def _fetch(self, oid: str) -> None:
        self._answer(self.hub.large[oid])

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


def _mode(repo: Repo, path: str) -> dict[str, Any]:
    """How a file is to be sent, and the hash of what the repository holds under that name."""
    there = _entry(path, repo.files[path]) if path in repo.files else None
    oid = there.get("lfs", there)["oid"] if there else None
    return {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "oid": oid}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry

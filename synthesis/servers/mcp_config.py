"""The user's `mcpServers` file, as Claude Desktop, Cursor and VS Code write it, with our own keys in `rise` objects."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, unquote_plus, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from synthesis.errors import UserError
from synthesis.seeds import digest
from synthesis.servers.sandbox.packages import network_variables
from synthesis.servers.scrub import MIN_SECRET, redact

Json = Any
_INNOCENT = {"EDITOR", "PAGER", "PATH", "PYTHONUNBUFFERED", "SHELL"}
"""Variables whose literal values are never secrets, whatever they look like."""
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:api[-_]?)?(?:key|apikey|accesskey|token|secret|pass|passwd|password|passphrase|pwd|pin|passcode|pat|auth|"
    r"authorization|bearer|cred|creds|credential|credentials|cookie|session|signature|sig)(?:s?$|[^a-z])"
    r"|(?<=[a-z])(?:Key|Token|Secret|Password|Credential)"
)
"""Names of variables, options and query fields that hold secrets: `API_KEY`, `--api-key`, `accessToken`."""
_ORDINARY = re.compile(
    r"(?:[A-Za-z][a-z]{0,11}|[A-Z]{1,12}|\d{1,6})(?:[-_.:/, ]+(?:[A-Za-z][a-z]{0,11}|[A-Z]{1,12}|\d{1,6}))*"
)
"""Values that are words and small numbers: `us-east-1`, `production`, `en_US.UTF-8`, `localhost:3000`."""
_PATH = re.compile(r"[~.]{0,2}/|[A-Za-z]:\\")
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
"""Strings, in group 1, are passed over."""
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)(?::-([^}]*))?\}|\$\{([^}]*)\}")


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression, but {text!r} has {error}") from None
    return text


Regex = Annotated[str, AfterValidator(_regex)]


class RiseOptions(BaseModel):
    """What rise-train adds to an entry: consent, state, limits. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: list[str] | Literal["all"] = []
    """Tools not marked read-only that may run all the same; they run in the sandbox."""
    deny: list[str] = []
    """Tools that never run."""
    state: Literal["none", "files", "memory"] = "files"
    """Where calls leave traces; "memory" means that a reset restarts the process."""
    field: str = ""
    """Field of work, e.g. `spreadsheets`."""
    license: str = ""
    """Its licence, for the cards; by default what its Python package declares."""
    network: bool = False
    """Whether the process may use the network."""
    timeout_s: float = Field(default=20, gt=0)
    """Seconds that one call may take."""
    startup_s: float = Field(default=60, gt=0)
    """Seconds that the start may take."""
    idle_s: float = Field(default=600, gt=0)
    """Seconds without a call after which the process is ended; the next call starts it again. Not for "memory"."""
    public: list[str] = []
    """Variables of `env` whose literal values are no secrets and may stand in results."""
    errors: list[Regex] = []
    """Further regular expressions that mean failure when a result matches."""
    volatile: list[Regex] = []
    """What the clock writes into results; the first group, or all of the match, becomes `<volatile>`."""


class ServerConfig(BaseModel):
    """One entry: a process (`command`) or a remote server (`url`). Keys that are not ours to know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    command: str = ""
    args: list[str] = []
    env: dict[str, str] = Field(default={}, repr=False)
    cwd: str = ""
    url: str = Field(default="", repr=False)
    type: str = ""
    headers: dict[str, str] = Field(default={}, repr=False)
    rise: RiseOptions = Field(default_factory=RiseOptions)
    network_env: dict[str, str] = Field(default={}, repr=False, exclude=True)
    """What the environment says of proxies, certificates and package indexes, for a process that has network."""
    secrets: frozenset[str] = Field(default=frozenset(), repr=False, exclude=True)
    """Values of `${VAR}`, headers and `env`: they are cut out of all that the server says."""

    def redact(self, text: str) -> str:
        """`text` without this server's secrets."""
        return redact(text, self.secrets)


class ServersFile(BaseModel):
    """A read servers file; `template` and `setup` describe the sandbox (top-level `rise.sandbox`)."""

    model_config = ConfigDict(frozen=True)

    path: Path
    servers: list[ServerConfig]
    template: Path | None = None
    setup: Path | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the file's text, before `${VAR}` is filled in, and of the sandbox that it names."""
        parts = [self.path.read_text(encoding="utf-8")]
        if self.template is not None:
            paths = sorted(path for path in self.template.rglob("*") if path.is_file())
            parts += [f"{path.relative_to(self.template)} {digest(path.read_bytes().hex())}" for path in paths]
        if self.setup is not None:
            parts.append(self.setup.read_text(encoding="utf-8"))
        return digest(parts)


class _SandboxOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    template: str | None = None
    setup: str | None = None


class _TopOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sandbox: _SandboxOptions = _SandboxOptions()


def _problem(path: Path, where: str, error: ValidationError) -> UserError:
    """The first complaint of pydantic as one sentence; the offending value is left out, as it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    steps = [str(step) for step in first["loc"] if not str(step).startswith(("literal[", "list["))]
    message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
    return UserError(f"{path}: {'.'.join([where, *steps])}: {message}")


def _expand(text: str, path: Path, where: str, secrets: set[str]) -> str:
    """`${VAR}`, `${env:VAR}` and `${VAR:-default}` filled in from the environment; values are noted as secrets.

    `${workspaceFolder}` is the folder of the servers file, `${userHome}` that of the user.
    """
    fixed = {"workspaceFolder": str(path.resolve().parent), "userHome": str(Path.home())}

    def value(match: re.Match[str]) -> str:
        name, default, other = match.groups()
        if other is not None:
            raise UserError(f"{path}: {where}: only ${{VAR}} and ${{VAR:-default}} can be filled in, not ${{{other}}}")
        if name in fixed:
            return fixed[name]
        found = os.environ.get(name)
        if found is None and default is None:
            raise UserError(f"{path}: {where}: environment variable {name} is not set")
        if found and len(found) >= MIN_SECRET:
            secrets.add(found)
        return found if found is not None else str(default)

    return _VARIABLE.sub(value, text)


def _expand_entry(entry: dict[str, Json], path: Path, where: str) -> tuple[dict[str, Json], frozenset[str]]:
    """The entry with variables filled in, and the secrets that came in with them."""
    secrets: set[str] = set()

    def expand(value: Json, at: str) -> Json:
        if isinstance(value, str):
            return _expand(value, path, at, secrets)
        if isinstance(value, list):
            return [expand(item, f"{at}.{index}") for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: expand(item, f"{at}.{key}") for key, item in value.items()}
        return value

    fields = ("command", "args", "env", "cwd", "url", "headers")
    expanded = {key: expand(value, f"{where}.{key}") if key in fields else value for key, value in entry.items()}
    return expanded, frozenset(secrets)


def _secrets(config: ServerConfig) -> frozenset[str]:
    """What the entry itself holds: headers, whole and without their scheme (`Bearer`), literal values of `env`, and
    what `args` and URLs say behind names of secrets. Ordinary words are none, but under such a name."""
    found = [part for value in config.headers.values() for part in (value, value.split(" ")[-1])]
    public = _INNOCENT | set(config.rise.public)
    for name, value in config.env.items():
        if name not in public and (_SECRET_NAME.search(name) or not (_PATH.match(value) or _ORDINARY.fullmatch(value))):
            found.append(value)
    for before, argument in zip(["", *config.args], config.args, strict=False):
        name, _, value = argument.partition("=")
        if value and _SECRET_NAME.search(name):
            found.append(value)
        elif before.startswith("-") and "=" not in before and _SECRET_NAME.search(before):
            found.append(argument)
    for text in (config.url, *config.env.values(), *config.args):
        found += _secrets_of_url(text[text.find("=") + 1 :] if text.startswith("-") else text)
    return frozenset(value for value in found if len(value) >= MIN_SECRET)


def _secrets_of_variables(variables: dict[str, str]) -> frozenset[str]:
    """Of variables about the network: what the URLs in them hide, and values under names of secrets."""
    found = [value for name, value in variables.items() if _SECRET_NAME.search(name)]
    for value in variables.values():
        for word in value.split():
            found += _secrets_of_url(word[word.rfind("=", 0, word.find("://")) + 1 :])
    return frozenset(value for value in found if len(value) >= MIN_SECRET)


def _secrets_of_url(text: str) -> list[str]:
    """The password of a URL, a user name that looks like a key, and query fields that are named like secrets or look
    like keys, as written and decoded; nothing of a text that is no URL."""
    try:
        url = urlsplit(text)
        password = url.password
    except ValueError:
        return []
    if not url.scheme or not url.netloc:
        return []
    fields = [field.partition("=") for field in url.query.split("&")]
    raw = [value for name, _, value in fields if _SECRET_NAME.search(name) or not _ORDINARY.fullmatch(unquote(value))]
    raw += [password] if password else []
    raw += [url.username] if url.username and not _ORDINARY.fullmatch(url.username) else []
    return [form for value in raw for form in (value, unquote_plus(value), unquote(value))]


def _beside(argument: str, folder: Path) -> str:
    """`argument` with a relative path to something in `folder` made absolute: servers start elsewhere, in the sandbox.

    A path that starts with a dot may lead to a folder too; a bare word is a path only where a file has this name.
    """
    option, sign, value = argument.rpartition("=") if argument.startswith("-") else ("", "", argument)
    path = folder / value
    dotted = value.startswith(("./", "../"))
    if not value or value.startswith("-") or not (path.exists() if dotted else path.is_file()):
        return argument
    return f"{option}{sign}{os.path.normpath(path)}"


def _load_entry(path: Path, top: str, name: str, entry: Json) -> ServerConfig:
    where = f"{top}.{name}"
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {where}: expected an object with `command` or `url`")
    expanded, secrets = _expand_entry(entry, path, where)
    expanded = {key: value for key, value in expanded.items() if value is not None}
    try:
        config = ServerConfig.model_validate({**expanded, "name": name, "secrets": secrets})
    except ValidationError as error:
        raise _problem(path, where, error) from None
    if bool(config.command) == bool(config.url):
        raise UserError(f"{path}: {where}: expected either `command` (a local server) or `url` (a remote one)")
    for variable in config.rise.public:
        if variable not in config.env:
            raise UserError(f"{path}: {where}.rise.public: `env` has no variable {variable}")
    if config.url and config.rise.allow == "all":
        raise UserError(f"{path}: {where}.rise.allow: a remote server has no sandbox, so name the tools that may run")
    folder = path.resolve().parent
    network = network_variables() if config.command else {}
    update: dict[str, Json] = {
        "secrets": config.secrets | _secrets(config) | _secrets_of_variables(network),
        "network_env": network,
    }
    if not config.cwd:
        update["args"] = [_beside(argument, folder) for argument in config.args]
    elif not config.cwd.startswith("/data"):
        update["cwd"] = str(folder / config.cwd)
    if "/" in config.command and not config.command.startswith("~"):
        # Joined, not resolved: a venv's python is a link, and works only by its own name.
        update["command"] = os.path.normpath(folder / config.command)
    return config.model_copy(update={"command": os.path.expanduser(config.command), **update})


def _sandbox_paths(path: Path, options: Json) -> dict[str, Path]:
    """`template` (a folder) and `setup` (a script) as paths, checked to exist."""
    try:
        sandbox = _TopOptions.model_validate(options).sandbox
    except ValidationError as error:
        raise _problem(path, "rise", error) from None
    found: dict[str, Path] = {}
    for key, value in sandbox.model_dump(exclude_none=True).items():
        found[key] = path.resolve().parent / value
        fits = found[key].is_dir() if key == "template" else found[key].is_file()
        if not fits:
            kind = "folder" if key == "template" else "file"
            raise UserError(f"{path}: rise.sandbox.{key}: expected an existing {kind}, found none at {value}")
    return found


def _parse(text: str) -> Json:
    """JSON, or JSON as editors write it: with comments and commas before a closing bracket.

    Raises `json.JSONDecodeError`, with the place in `text`.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        bare = _COMMENT.sub(lambda match: match[1] or re.sub(r"[^\n]", " ", match[0]), text)
        return json.loads(_COMMA.sub(lambda match: match[1] or " ", bare))


def _is_off(entry: Json) -> bool:
    """Whether an entry is switched off, by whichever of the usual words."""
    return isinstance(entry, dict) and (
        entry.get("disabled") is True or entry.get("enabled") is False or entry.get("isActive") is False
    )


def load_servers(path: Path) -> ServersFile:
    """Read and check a servers file.

    Top-level key `mcpServers` (Claude Desktop, Cursor) or `servers` (VS Code). `${VAR}` is filled in from the
    environment. A relative `command` that holds a slash, `cwd`, the sandbox paths, and without `cwd` what `args` name
    there, start from the file's folder. Comments, commas before a closing bracket and a byte order mark are read over,
    and entries that are off (`disabled`, `enabled: false`, `isActive: false`) are not looked at.

    Raises `UserError` for whatever is wrong with the file.
    """
    try:
        document = _parse(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: expected a servers file that can be read, but: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: expected valid JSON: {error.msg}"
        ) from None
    top = next((key for key in ("mcpServers", "servers") if isinstance(document, dict) and key in document), None)
    if top is None or not isinstance(document[top], dict) or not document[top]:
        raise UserError(f"{path}: expected an object `mcpServers` with at least one server, by name")
    entries = {name: entry for name, entry in document[top].items() if not _is_off(entry)}
    servers = [_load_entry(path, top, name, entry) for name, entry in entries.items()]
    if not servers:
        raise UserError(f"{path}: {top}: expected at least one server that is not disabled")
    return ServersFile(path=path, servers=servers, **_sandbox_paths(path, document.get("rise", {})))

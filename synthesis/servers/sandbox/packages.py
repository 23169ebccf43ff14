"""Entries that fetch their packages when they start (`uvx`, `npx`): what was fetched, and by which way.

What such a runner downloads lands in its HOME. `rise servers prepare` (`synthesis.servers.prepare`) starts the server
once, with network, in a HOME that stays; later each sandbox gets a copy of it, and the runner is told that it is
offline. So a server can change its copy only.
"""

import os
import re
import shutil
from pathlib import Path

from synthesis.seeds import digest

_RUNNER = re.compile(r"(?:^|[/\\])(?:uvx?|npx?|pnpx?|bunx?|pipx)(?:\.cmd|\.exe)?$")
_OFFLINE = {"UV_OFFLINE": "1", "npm_config_offline": "true"}
"""What tells the runners that know it to be content with what is there."""
_DONE = ".rise_prepared"
"""Stands in a HOME for which everything was fetched; without it, fetching was interrupted."""
_NETWORK = re.compile(
    r"(?i:(?:https?|all|no)_proxy)|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|AWS_CA_BUNDLE|"
    r"NODE_EXTRA_CA_CERTS|UV_(?:INDEX|DEFAULT_INDEX|INDEX_URL|EXTRA_INDEX_URL|INDEX_\w+_(?:USERNAME|PASSWORD)|FIND_LINKS|"
    r"NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|HTTP_TIMEOUT|CONFIG_FILE)|PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|CERT|"
    r"TRUSTED_HOST|PROXY|CONFIG_FILE)|(?i:npm_config_(?:registry|cafile|ca|proxy|https_proxy|noproxy|strict_ssl|userconfig))|"
    r"BUN_CONFIG_REGISTRY"
)
"""Variables that say how the network is reached: proxies, certificates, package indexes."""


def fetches(command: str) -> bool:
    """Whether the command is one that fetches what it runs."""
    return bool(_RUNNER.search("/" + command))


def network_variables() -> dict[str, str]:
    """What this process's environment says of proxies, certificates and package indexes."""
    return {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}


def home_of(name: str, command: str, args: list[str]) -> Path:
    """Where the HOME of an entry is kept, in the user's cache, whether something was fetched or not."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    safe = re.sub(r"\W", "_", name)
    return cache / "rise_train" / "servers" / f"{safe}-{digest([command, args])[:12]}"


def seal(home: Path) -> None:
    """Note that everything was fetched into `home`."""
    (home / _DONE).touch()


def furnish(prepared: Path, home: Path) -> dict[str, str]:
    """Copy what was fetched into `home`, the empty HOME of a sandbox, and return the variables that say so.

    Nothing happens, and there are none, where nothing was fetched.
    """
    if not (prepared / _DONE).is_file():
        return {}
    if not (home / _DONE).is_file():
        shutil.copytree(prepared, home, symlinks=True, dirs_exist_ok=True)
    return dict(_OFFLINE)

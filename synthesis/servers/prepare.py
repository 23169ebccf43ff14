"""`rise servers prepare`: fetches once what entries such as `uvx` and `npx` run, so that they start without network."""

import shutil
import time

from synthesis.servers.mcp_config import ServerConfig, ServersFile
from synthesis.servers.sandbox.launcher import probe
from synthesis.servers.sandbox.packages import home_of, seal
from synthesis.servers.sandbox.workspace import Workspace
from synthesis.servers.supervisor import Server

PATIENCE_S = 900.0
"""Seconds that a start with downloads may take."""


async def prepare(file: ServersFile, config: ServerConfig) -> str:
    """Start the server of an entry with network, in a HOME that stays. Returns a line that says what came.

    What is there already is fetched anew, and kept where that fails. Raises `UserError` when the server does not start.
    """
    began = time.perf_counter()
    home = home_of(config.name, config.command, config.args)
    before = home.with_name(f"{home.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if home.exists():
        home.rename(before)
    home.mkdir(parents=True)
    try:
        with Workspace(file.template, file.setup, probe()) as workspace:
            inside = workspace.private(config.name)["home"]
            inside.rmdir()
            inside.symlink_to(home)  # so the sandbox lets it write there; HOME itself is the path that stays
            options = {"network": True, "startup_s": max(PATIENCE_S, config.rise.startup_s)}
            changed = {"rise": config.rise.model_copy(update=options), "env": {**config.env, "HOME": str(home)}}
            with open(workspace.root / "log.txt", "w", encoding="utf-8") as log:
                server = Server(config.model_copy(update=changed), workspace, log)
                await server.start()
                await server.close()
            inside.unlink()
        seal(home)
    except BaseException:
        shutil.rmtree(home)
        if before.exists():
            before.rename(home)
        raise
    shutil.rmtree(before, ignore_errors=True)
    size = sum(path.lstat().st_size for path in home.rglob("*"))
    return f"{config.name} {server.version}: {size / 1e6:.1f} MB in {time.perf_counter() - began:.1f} s, in {home}"

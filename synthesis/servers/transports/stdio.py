"""The transport to a server that is a process: lines of JSON-RPC over its standard input and output.

The SDK has one too. This one refuses a message that is too long as soon as it is, while the SDK's (2.3) joins a long
line from its pieces in quadratic time: 50 MB keep it busy for half a minute.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TextIO

import anyio

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

MAX_MESSAGE = 8 << 20
"""Bytes that one message of a server may have; a longer one ends the server."""
PATIENCE_S = 2.0
"""Seconds that a server gets to end by itself once its input is closed, and again once it was asked to."""


class OversizeError(Exception):
    """The server sent a longer message than `MAX_MESSAGE`."""


@contextlib.asynccontextmanager
async def connect(command: list[str], env: dict[str, str], cwd: str, stderr: TextIO) -> AsyncIterator[Any]:
    """Start the process and yield the streams that the SDK's `Client` takes; leaving ends the process and its children.

    The process sees `env` and a few variables that say nothing (`mcp.client.stdio.get_default_environment`). Raises
    `OSError` when it cannot be started, `OversizeError` from within when a message is too long.
    """
    from mcp.client.stdio import get_default_environment

    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env=get_default_environment() | env,
        cwd=cwd,
        limit=MAX_MESSAGE,
        start_new_session=True,
    )
    heard, hearing = anyio.create_memory_object_stream[Any](0)
    said, saying = anyio.create_memory_object_stream[Any](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_listen, process, heard)
            group.start_soon(_speak, process, saying)
            try:
                yield hearing, said
            finally:
                group.cancel_scope.cancel()
    finally:
        for stream in (heard, hearing, said, saying):
            stream.close()
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _listen(process: asyncio.subprocess.Process, heard: "MemoryObjectSendStream[Any]") -> None:
    """Pass on what the server says until it closes its output. A line that is no message is passed on as its error."""
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    assert process.stdout is not None
    async with heard:
        while line := await _line(process.stdout):
            try:
                message: Any = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError as error:
                message = error
            await heard.send(message)


async def _line(stdout: asyncio.StreamReader) -> bytes:
    try:
        return await stdout.readline()
    except ValueError:
        raise OversizeError(f"it sent a message of more than {MAX_MESSAGE >> 20} MiB") from None


async def _speak(process: asyncio.subprocess.Process, saying: "MemoryObjectReceiveStream[Any]") -> None:
    """Send what there is to say. A server that does not listen any more is dying, and `_listen` will hear that."""
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        async for item in saying:
            process.stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await process.stdin.drain()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the server's input and wait; then ask it to end, and at last make it, with all that it has started."""
    assert process.stdin is not None
    assert process.stdout is not None
    draining = asyncio.create_task(_drain(process.stdout))  # a server that is still writing cannot end
    process.stdin.close()
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if not await _has_ended(process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
    await _has_ended(process)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived it
    draining.cancel()


async def _drain(stdout: asyncio.StreamReader) -> None:
    while await stdout.read(1 << 16):
        pass


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Whether it ends within `PATIENCE_S`. (`process.wait` would wait for children that hold its output, too.)"""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while process.returncode is None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True

"""What a dataset keeps for the test alone: whole servers, single tools, or all servers of a field.

A model that has never met a tool shows whether it learned to follow the request or only learned the tool.
"""

from collections.abc import Iterable, Mapping

from synthesis.errors import UserError
from synthesis.records import Tool

WAYS = ("server", "tool", "field")


def held_out_tools(names: Iterable[str], tools: Mapping[str, Tool], fields: Mapping[str, str]) -> frozenset[str]:
    """Full names of the tools that `names` hold out, each `server:NAME`, `tool:FULL_NAME` or `field:NAME`.

    Args:
        tools: by full name.
        fields: field of each server, by the server's name.

    Raises `UserError` for a name of another form, or one that no tool answers to.
    """
    held: set[str] = set()
    for name in names:
        way, _, wanted = name.partition(":")
        if way not in WAYS or not wanted:
            raise UserError(f"--hold-out: expected server:NAME, tool:NAME or field:NAME, not {name!r}.")
        by_tool = {
            full: {"server": tool.server, "tool": full, "field": fields.get(tool.server, "")}[way]
            for full, tool in tools.items()
        }
        found = {full for full, value in by_tool.items() if value == wanted}
        if not found:
            known = ", ".join(sorted({value for value in by_tool.values() if value})[:12])
            raise UserError(f"--hold-out: no {way} is called {wanted!r}; there are {known}.")
        held |= found
    return frozenset(held)

"""One candidate call on trial: checked, set up, executed in a clean sandbox, judged, and executed once more."""

from collections.abc import Sequence
from dataclasses import dataclass

from synthesis.authors.base import Candidate, is_reference
from synthesis.calls.candidates import candidate_id
from synthesis.calls.protocol import Policy, Runner
from synthesis.calls.references import UnresolvedError, fill, has_reference, resolve, with_feeds
from synthesis.calls.verdicts import judge
from synthesis.records import TRIES, Json, Primitive, Tool, ToolResult
from synthesis.schemas import arguments_fault
from synthesis.servers.scrub import holds_secret

_WITHHELD = "secret: an argument holds the sign that stands for a secret"


class Trial:
    """One candidate, executed."""

    def __init__(self, servers: Runner, policies: dict[str, Policy], candidate: Candidate, shared: bool) -> None:
        self.servers, self.policies, self.candidate, self.shared = servers, policies, candidate, shared
        self.tool = servers.tools[candidate.tool]
        calls = [call["tool"] for call in candidate.setup]
        known = [servers.tools[name].server for name in calls if name in servers.tools]
        self.lost = False
        """A call of the last run got no answer."""
        self.involved = sorted({self.tool.server, *known})

    def skip(self, reason: str) -> Primitive:
        """The candidate, rejected without a call."""
        return self._primitive(Outcome(self.candidate.arguments, ToolResult(text="")), reason)

    async def run(self, repeat: bool) -> Primitive:
        """Check, execute, judge; if `repeat`, execute a success once more. All of it again where a server was lost."""
        for _ in range(TRIES):
            self.lost = False
            primitive = await self._run(repeat)
            if not self.lost:
                break
            self.shared = False  # the process that knew the calls before is gone
        return primitive

    async def _run(self, repeat: bool) -> Primitive:
        arguments = self.candidate.arguments
        if not has_reference(arguments) and (reason := _fault(self.tool, arguments)):
            return self.skip(reason)
        first = await self._execute(clean=not self.shared)
        if isinstance(first, str):
            return self.skip(first)
        if reason := self._judge(self.tool, first.result, first.arguments):
            return self._primitive(first, reason)
        if not repeat:
            return self._primitive(first, "")
        second = await self._execute(clean=not self.shared)
        if self.shared and not _same_answer(first, second):
            first, second = await self._execute(clean=True), await self._execute(clean=True)
        if isinstance(first, str):
            return self.skip(first)
        reason = self._judge(self.tool, first.result, first.arguments)
        if not isinstance(second, str) and second.result.down:
            reason = reason or self._judge(self.tool, second.result, second.arguments)
        return self._primitive(first, reason, deterministic=_same_answer(first, second))

    def _judge(self, tool: Tool, result: ToolResult, arguments: dict[str, Json]) -> str:
        return judge(tool, result, self.policies[tool.server].errors, arguments)

    async def _execute(self, clean: bool) -> "Outcome | str":
        """Run setup and call; a string is the reason why it did not come to the call."""
        if clean:
            await self.servers.reset(self.involved)
        texts: list[str] = []
        try:
            for index, call in enumerate(self.candidate.setup):
                if call["tool"] not in self.servers.tools:
                    return f"setup: call {index} names {call['tool']!r}, which may not run or does not exist"
                tool = self.servers.tools[call["tool"]]
                filled = fill(tool, call["arguments"], texts)
                if holds_secret(filled):
                    return f"setup: call {index}, {call['tool']}: {_WITHHELD}"
                result = await self._call(call["tool"], filled)
                if reason := self._judge(tool, result, filled):
                    return f"setup: call {index}, {call['tool']}: {reason}"
                texts.append(result.text)
            arguments = fill(self.tool, self.candidate.arguments, texts)
        except UnresolvedError as error:
            return f"setup: {error}"
        if reason := _fault(self.tool, arguments):
            return reason
        return Outcome(arguments, await self._call(self.candidate.tool, arguments), _taken(self.candidate, texts))

    async def _call(self, name: str, arguments: dict[str, Json]) -> ToolResult:
        result = await self.servers.call(name, arguments)
        self.lost = self.lost or result.down
        return result

    def _primitive(self, outcome: "Outcome", reason: str, deterministic: bool = True) -> Primitive:
        return Primitive(
            id=candidate_id(self.candidate, self.servers.tools),
            server=self.tool.server,
            tool=self.candidate.tool,
            arguments=outcome.arguments,
            setup=with_feeds(self.candidate),
            result=outcome.result.text,
            verdict="rejected" if reason else "ok",
            reason=reason,
            coverage=self.candidate.coverage,
            deterministic=deterministic,
            latency_ms=round(outcome.result.latency_ms, 1),
            server_version=self.servers.versions.get(self.tool.server, ""),
            schema_hash=self.tool.schema_hash,
        )


@dataclass(frozen=True)
class Outcome:
    """What one execution gave: the arguments as they were sent, and the answer."""

    arguments: dict[str, Json]
    result: ToolResult
    taken: tuple[str, ...] = ()
    """Values that came from setup results, e.g. `presentation_1`: they may differ between runs in one process."""

    @property
    def masked(self) -> str:
        """The answer with the taken values replaced, to compare runs."""
        text = self.result.text
        for value in sorted(self.taken, key=len, reverse=True):
            text = text.replace(value, "<taken>")
        return text


def _fault(tool: Tool, arguments: dict[str, Json]) -> str:
    """Why the call is not made; empty where it may be."""
    if holds_secret(arguments):
        return _WITHHELD
    reason = arguments_fault(tool, arguments)
    return f"input_schema: {reason}" if reason else ""


def _same_answer(first: Outcome | str, second: Outcome | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return False
    return first.masked == second.masked and first.result.is_error == second.result.is_error


def _taken(candidate: Candidate, texts: Sequence[str]) -> tuple[str, ...]:
    values = [resolve(item, texts) for item in candidate.arguments.values() if is_reference(item)]
    return tuple(value for value in values if isinstance(value, str) and value)

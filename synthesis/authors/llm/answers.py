"""What the LLM author's other prompts are answered with, and what makes an answer unusable.

A fault goes back to the model as it stands here, so it says what was expected. The pipeline's own guards come later and
are the same for every author.
"""

import json
import re
from collections.abc import Sequence
from typing import Literal

from synthesis.authors.base import Draft
from synthesis.llm.client import Answer
from synthesis.records import CriticalParameter, Difficulty, Distractor, Json, MutationKind, Trajectory
from synthesis.requests.difficulty import distractor_fault
from synthesis.servers.sandbox.workspace import map_strings
from synthesis.text.equality import normal_form
from synthesis.text.evidence import supported
from synthesis.text.visible import whole

Deviating = Literal["hypernym", "hyponym", "co_hyponym", "irrelevance", "antonym", "lexical_similarity"]


class Claim(Answer):
    """Which words of the request an argument comes from."""

    step: int
    parameter: str
    evidence: str


class RuledOut(Answer):
    """A value that the request mentions and rules out."""

    step: int
    parameter: str
    value: str
    evidence: str


class Request(Answer):
    """The answer to `compose`."""

    request: str
    intentions: list[str]
    critical: list[Claim]
    ruled_out: list[RuledOut]
    response: str

    def draft(self, trajectory: Trajectory, style: str, difficulty: Difficulty | None) -> Draft:
        """The answer as a draft, its values those of the trajectory."""
        critical = [
            CriticalParameter(
                step=step, parameter=name, value=trajectory.steps[step].arguments[name], evidence=evidence
            )
            for (step, name), evidence in self._claims(trajectory).items()
        ]
        distractors = self._distractors(trajectory)
        quoted = len(self.intentions) == len(trajectory.steps) and all(map(self._says, self.intentions))
        return Draft(
            request=self.request,
            response=self.response,
            style=style,
            critical=critical,
            difficulty=[difficulty] if difficulty and distractors else [],
            distractors=distractors,
            intentions=self.intentions if quoted else [],
        )

    def _says(self, words: str) -> bool:
        return bool(words.strip()) and words.casefold() in self.request.casefold()

    def _claims(self, trajectory: Trajectory) -> dict[tuple[int, str], str]:
        """Where the request says what the user has to say: in the words that the model quotes, or that a rule finds.

        A small model writes a good request and quotes it badly; what a rule can find need not fail by that.
        """
        quoted = {
            (claim.step, claim.parameter): claim.evidence for claim in self.critical if self._says(claim.evidence)
        }
        flowing = {(edge.target, edge.parameter) for edge in trajectory.edges}
        found: dict[tuple[int, str], str] = {}
        for index, step in enumerate(trajectory.steps):
            for name, value in step.arguments.items():
                place = (index, name)
                if place in quoted:
                    found[place] = quoted[place]
                elif place not in flowing and (words := words_for(value, self.request)):
                    found[place] = words
        return found

    def _distractors(self, trajectory: Trajectory) -> list[Distractor]:
        return [
            Distractor(
                step=part.step,
                parameter=part.parameter,
                value=typed_like(part.value, trajectory.steps[part.step].arguments[part.parameter]),
                evidence=part.evidence,
            )
            for part in self.ruled_out
        ]

    def fault(self, trajectory: Trajectory, difficulty: Difficulty | None) -> str:
        """Every argument must have its source, a value that is ruled out its place and its words."""
        if not self.request.strip() or not self.response.strip():
            return "request, response: expected some text"
        return (
            self._source_fault(trajectory)
            or _place_fault(trajectory, self.ruled_out)
            or ("ruled_out: expected no value here" if self.ruled_out and difficulty is None else "")
            or ("ruled_out: expected one value here" if difficulty and not self.ruled_out else "")
            or self._ruled_out_fault(trajectory)
        )

    def _ruled_out_fault(self, trajectory: Trajectory) -> str:
        distractors = self._distractors(trajectory)
        for part in distractors:
            value = trajectory.steps[part.step].arguments[part.parameter]
            if type(part.value) is not type(value):
                return f"ruled_out: expected a value of the type of {json.dumps(value)}, as JSON"
        return distractor_fault(trajectory, distractors, self.request)

    def _source_fault(self, trajectory: Trajectory) -> str:
        flowing = {(edge.target, edge.parameter) for edge in trajectory.edges}
        claimed = self._claims(trajectory)
        spoken: set[str] = set()
        for index, step in enumerate(trajectory.steps):
            for name, value in step.arguments.items():
                if (index, name) not in flowing:
                    spoken.add(normal_form(value))
                    if (index, name) not in claimed:
                        return f"critical: step {index}, {name}: expected the words of the request that say {value!r}"
        for edge in trajectory.edges:
            if normal_form(edge.value) not in spoken and supported(edge.value, self.request):
                return f"request: {edge.value!r} comes from a result, so the user cannot know it; refer to it instead"
        return ""


def words_for(value: Json, request: str) -> str:
    """The shortest part of the request between its marks that says the value by rule; empty where none does."""
    parts = [part for part in re.split(r"(?<=[.!?;:,])\s+|\n+", request) if supported(value, part)]
    return min(parts, key=len, default=request if supported(value, request) else "")


def _place_fault(trajectory: Trajectory, parts: Sequence[RuledOut]) -> str:
    for part in parts:
        known = trajectory.steps[part.step].arguments if 0 <= part.step < len(trajectory.steps) else {}
        if part.parameter not in known:
            return f"step {part.step}, {part.parameter!r}: there is no such argument"
    return ""


class Opinion(Answer):
    """The answer to `objection`."""

    agrees: bool
    reason: str


class Alternative(Answer):
    """One deviating value."""

    kind: Deviating
    value: str


class Alternatives(Answer):
    """The answer to `alternatives`."""

    alternatives: list[Alternative]

    def pool(self, value: Json, each: int) -> list[tuple[MutationKind, Json]]:
        """At most `each` values of each kind, of the type of `value`, kind by kind in the answer's order."""
        kinds: dict[MutationKind, list[Json]] = {}
        for part in self.alternatives:
            other = typed_like(part.value, value)
            if type(other) is type(value) and other not in kinds.setdefault(part.kind, []):
                kinds[part.kind].append(other)
        return [(kind, option) for kind, options in kinds.items() for option in options[:each]]

    def fault(self, value: Json) -> str:
        """Some value must have the right type; what the schema or the request forbids is dropped later."""
        return "" if self.pool(value, 1) else f"alternatives: expected values of the type of {json.dumps(value)}"


class Verdict(Answer):
    """Whether the call with one change does what was asked for too."""

    number: int
    fits: bool


class Verdicts(Answer):
    """The answer to `fitting`."""

    verdicts: list[Verdict]

    def deviating(self, count: int) -> list[bool]:
        """Of the changes 1 to `count`, whether each was judged and never said to fit."""
        said: dict[int, bool] = {}
        for verdict in self.verdicts:
            said[verdict.number] = said.get(verdict.number, False) or verdict.fits
        return [said.get(number) is False for number in range(1, count + 1)]

    def fault(self, count: int) -> str:
        """Every change must be judged."""
        missing = set(range(1, count + 1)) - {verdict.number for verdict in self.verdicts}
        return f"verdicts: expected one of each change; missing: {sorted(missing)}" if missing else ""


def parsed(text: str) -> Json:
    """`text` read as JSON; None where it is none, holds what JSON does not have (NaN), or is nested without end.

    Half a surrogate pair, which models write and no file can hold, becomes the sign for what is unreadable.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
        json.dumps(value)
    except (ValueError, RecursionError):
        return None
    return map_strings(value, whole)


def _no_number(word: str) -> Json:
    raise ValueError(f"{word} is no JSON")


def typed_like(text: str, value: Json) -> Json:
    """What `text` stands for beside `value`: itself beside a text, otherwise what it is as JSON.

    A whole number becomes a fraction beside one.
    """
    if isinstance(value, str):
        return text
    other = parsed(text)
    return float(other) if isinstance(value, float) and type(other) is int else other

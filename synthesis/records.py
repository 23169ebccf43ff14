"""The records that every stage passes on, and that the journals of a run directory hold.

A record has a content-derived `id` and names its parents' ids, so any negative can be followed back to the real call
that it grew from. All records are immutable and serialise to one line of JSON.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from synthesis.seeds import digest

Json = Any
Pattern = Literal["single", "sequential", "parallel", "conditional"]
MutationKind = Literal[
    "hypernym",
    "hyponym",
    "co_hyponym",
    "irrelevance",
    "antonym",
    "lexical_similarity",
    "deletion",
    "combination",
    "distractor",
    "extra_argument",
    "sibling_tool",
    "neighbour_value",
]
"""The paper's (RISE, section 3.3.2) up to `combination`; the last four are ours.

`distractor` puts in a value that the request mentions but rules out, `extra_argument` adds an optional argument that
nobody asked for, `sibling_tool` calls another tool of the same server, `neighbour_value` puts in what the request says
for another critical parameter.
"""
Difficulty = Literal["ruled_out", "correction", "same_type", "reference"]
"""What makes a request hard: a value mentioned and ruled out, a late correction, two values of one type, a reference
to an earlier result."""
Execution = Literal["covert", "overt", "equivalent"]
"""What the real tool says to a deviating call: as if all were well, an error, or the same as to the right one."""


class Record(BaseModel):
    """Base of all records: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tool(Record):
    """One tool of one server, as its `tools/list` described it."""

    server: str
    name: str
    description: str = ""
    input_schema: dict[str, Json]
    output_schema: dict[str, Json] | None = None
    read_only: bool = False
    """The server's own `readOnlyHint`."""

    @property
    def full_name(self) -> str:
        """The name the model sees: unique over servers, and allowed by the OpenAI rule (letters, digits, `_`, `-`).

        A name that the rule would leave no sense in, or that is longer than 64 characters, ends with its hash.
        """
        whole = f"{self.server}__{self.name}"
        allowed = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
        if whole.isascii() and len(allowed) <= 64:
            return allowed
        return f"{re.sub('__+', '__', allowed)[:55].rstrip('_')}_{digest(whole)[:8]}"

    @property
    def schema_hash(self) -> str:
        """Hash of all that a caller relies on; a changed hash means that old calls prove nothing any more."""
        return digest(self.name, self.description, self.input_schema, self.output_schema)

    def spec(self) -> dict[str, Json]:
        """The tool in the OpenAI format that chat templates take."""
        function = {"name": self.full_name, "description": self.description, "parameters": self.input_schema}
        return {"type": "function", "function": function}


TRIES = 3
"""How often what rests on a call is tried, from a clean sandbox, while its server gives no answer."""


class ToolResult(Record):
    """What a server answered to one call. `text` has the sandbox path replaced by the logical one, `/data`."""

    text: str
    is_error: bool = False
    structured: Json = None
    latency_ms: float = 0.0
    down: bool = False
    """The server died in this call, did not start for it, or gave no answer in time: nothing is known about the call
    itself, so it gets no verdict before it was tried `TRIES` times."""


class Primitive(Record):
    """A tool primitive (RISE, section 3.2.1): one call that was really executed, and the verdict on it.

    `setup` holds the calls that had to come before it in the fresh sandbox (say, opening a presentation); each is
    `{"tool": full_name, "arguments": {...}}`.
    """

    id: str
    server: str
    tool: str
    """The tool's full name."""
    arguments: dict[str, Json]
    setup: list[dict[str, Json]] = []
    result: str
    verdict: Literal["ok", "rejected"]
    reason: str = ""
    """Why it was rejected: the rule that fired and the text that it fired on."""
    coverage: Literal["required", "some", "all"]
    """Which parameters the call gives: only the required ones, all of them, or something between."""
    deterministic: bool = True
    latency_ms: float = 0.0
    server_version: str = ""
    schema_hash: str = ""


class Edge(Record):
    """A proven data flow: argument `parameter` of step `target` holds `value`, which stands in `source`'s result."""

    source: int
    target: int
    parameter: str
    value: Json


class Step(Record):
    """One executed call of a trajectory. Steps of equal `turn` are called in parallel, in one assistant message."""

    turn: int
    tool: str
    arguments: dict[str, Json]
    result: str
    primitive_id: str


class Condition(Record):
    """What a conditional trajectory hangs on: whether `value` stands in the result of step `step`."""

    step: int
    value: str
    holds: bool
    then_tool: str
    then_arguments: dict[str, Json]
    else_tool: str
    else_arguments: dict[str, Json]


class Trajectory(Record):
    """A virtual trajectory (RISE, section 3.2.2) that was executed from end to end in a clean sandbox."""

    id: str
    pattern: Pattern
    steps: list[Step]
    edges: list[Edge] = []
    condition: Condition | None = None

    @property
    def turns(self) -> list[list[int]]:
        """Step indices grouped by assistant turn, in order."""
        last = max(step.turn for step in self.steps)
        return [[i for i, step in enumerate(self.steps) if step.turn == turn] for turn in range(last + 1)]


class CriticalParameter(Record):
    """An intent-aware critical parameter, ICP (RISE, Eq. 1 and 2), of one step, with both verdicts on it."""

    step: int
    parameter: str
    value: Json
    evidence: str = ""
    """The words of the request that the value comes from."""
    by_author: bool = True
    by_rule: bool = True


class Distractor(Record):
    """A value that the request mentions for a parameter and rules out: "not the 20th", "the 20th, no, the 19th"."""

    step: int
    parameter: str
    value: Json
    evidence: str
    """The words of the request that mention it."""


class Sample(Record):
    """A positive: a user request for an executed trajectory, with its critical parameters."""

    id: str
    trajectory_id: str
    pattern: Pattern
    style: str
    """Name of the way of speaking, e.g. `plain`, `polite`, `terse`."""
    request: str
    response: str
    """The assistant's closing message."""
    critical: list[CriticalParameter]
    difficulty: list[Difficulty] = []
    """Sorted; empty for a plain request."""
    distractors: list[Distractor] = []
    intentions: list[str] = []
    """One a step: the words of the request that ask for it (the sub-intention; RISE, section 3.2.3)."""


class Mutation(Record):
    """One change of a negative against gold: most often, a critical parameter with another value.

    `after` is absent (`deleted` true) for a deletion. An `extra_argument` has `added` true and no `before`. A
    `sibling_tool` has `parameter` empty, the tools' full names in `before` and `after`, and the arguments of the call
    of the other tool in `arguments`.
    """

    step: int
    parameter: str
    kind: MutationKind
    before: Json
    after: Json = None
    deleted: bool = False
    added: bool = False
    arguments: dict[str, Json] = {}


class Negative(Record):
    """A deviating assistant turn (RISE, section 3.3.2): the sample's turn with some ICPs mutated, all else equal."""

    id: str
    sample_id: str
    turn: int
    kind: MutationKind
    """The mutation's kind; `combination` when several ICPs change."""
    mutations: list[Mutation]
    score: float
    """Complexity score of the mutation, 0 to 1 (RISE, section 3.3.2; our reading of the weights)."""
    primitive_ids: list[str]
    """The real calls that the mutated steps grew from."""
    executed: Execution | None = None
    """The verdict of the real tool; None where it was not asked."""

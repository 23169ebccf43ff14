"""A small server's tools, its phrasebook, and trajectories over them: what the tests of the author share."""

from pathlib import Path

from synthesis.authors.base import Draft
from synthesis.authors.offline.author import OfflineAuthor
from synthesis.records import Condition, Edge, Json, Sample, Step, Tool, Trajectory
from synthesis.requests.critical import ground
from synthesis.seeds import digest

PHRASEBOOK = """
server: shop
field: trade
pools:
  city: [Oslo, Rome, Lima, Cairo]
tools:
  find_orders:
    effect: read
    object: orders
    heads: ["find the orders", "show me all orders", "which orders are there", "look up orders of {customer}"]
    phrases:
      customer: ["of {v}", "by {v}", "for {v}"]
      since: ["since {v}", "from {v} on"]
      limit: ["at most {v}", "but only {v} of them"]
      order: {"asc": ["oldest first, ascending"], '"desc"': ["newest first, descending"]}
      paid: {"true": ["that are paid"], "false": ["that are not paid yet"]}
    cases:
      - {customer: {one_of: [Anna Weber, Ben Costa, Clara Novak]}}
      - {customer: Ben Costa, order: {one_of: [asc, desc]}}
    optional:
      since: {one_of: ["2026-01-19", "2026-03-02"]}
      limit: {one_of: [3, 5, 12]}
      paid: {one_of: [true, false]}
  open_basket:
    effect: write
    object: basket
    heads: ["open a new basket", "start a basket"]
    phrases:
      city: ["for delivery to {v}", "to be sent to {v}"]
    cases:
      - {city: {pool: city}}
  add_note:
    effect: write
    object: note
    heads: ["write the note {text}", "leave a note"]
    phrases:
      text: ["saying {v}", "with the text {v}"]
      basket_id: ["on basket {v}"]
    obscured:
      basket_id: ["on that basket", "on the new basket"]
    setup: [{tool: open_basket, arguments: {city: {pool: city}}}]
    cases:
      - {basket_id: {result: 0, pattern: 'B-\\d+'}, text: {one_of: [Please ring twice, Leave it with the neighbour]}}
"""


def _tool(name: str, required: list[str], read_only: bool = False, **properties: dict[str, Json]) -> Tool:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Tool(server="shop", name=name, input_schema=schema, read_only=read_only)


TEXT: dict[str, Json] = {"type": "string"}
TOOLS = {
    tool.full_name: tool
    for tool in (
        _tool(
            "find_orders",
            ["customer"],
            read_only=True,
            customer=TEXT,
            since=TEXT,
            limit={"type": "integer", "minimum": 1, "maximum": 50, "default": 10},
            order={"type": "string", "enum": ["asc", "desc"]},
            paid={"type": "boolean", "description": "Only orders that are paid, or that are not."},
        ),
        _tool("open_basket", ["city"], city=TEXT),
        _tool("add_note", ["basket_id", "text"], basket_id=TEXT, text=TEXT),
    )
}


def make_author(folder: Path) -> OfflineAuthor:
    """An offline author that knows the shop."""
    (folder / "shop.yaml").write_text(PHRASEBOOK, encoding="utf-8")
    return OfflineAuthor(folder)


def step(turn: int, tool: str, result: str = "ok", **arguments: Json) -> Step:
    """An executed call."""
    name = f"shop__{tool}"
    return Step(turn=turn, tool=name, arguments=arguments, result=result, primitive_id=digest(name, arguments))


SEARCH = step(
    0, "find_orders", "2 orders: A-1 Oslo, A-2 Rome", customer="Ben Costa", since="2026-01-19", limit=5, paid=False
)
SINGLE = Trajectory(id="t-single", pattern="single", steps=[SEARCH])
SEQUENTIAL = Trajectory(
    id="t-sequential",
    pattern="sequential",
    steps=[
        step(0, "open_basket", "opened B-77", city="Oslo"),
        step(1, "add_note", basket_id="B-77", text="Please ring twice"),
    ],
    edges=[Edge(source=0, target=1, parameter="basket_id", value="B-77")],
)
PARALLEL = Trajectory(
    id="t-parallel",
    pattern="parallel",
    steps=[step(0, "find_orders", customer="Anna Weber", order="desc"), step(0, "find_orders", customer="Clara Novak")],
)
CONDITIONAL = Trajectory(
    id="t-conditional",
    pattern="conditional",
    steps=[SEARCH, step(1, "open_basket", "opened B-78", city="Lima")],
    condition=Condition(
        step=0,
        value="Cairo",
        holds=False,
        then_tool="shop__find_orders",
        then_arguments={"customer": "Anna Weber"},
        else_tool="shop__open_basket",
        else_arguments={"city": "Lima"},
    ),
)
TRAJECTORIES = [SINGLE, SEQUENTIAL, PARALLEL, CONDITIONAL]


def make_sample(author: OfflineAuthor, trajectory: Trajectory, variant: int, seed: int = 0) -> Sample:
    """A positive for `trajectory`, as the pipeline makes it."""
    draft: Draft = author.compose(trajectory, TOOLS, variant, seed)
    return Sample(
        id=digest(trajectory.id, variant),
        trajectory_id=trajectory.id,
        pattern=trajectory.pattern,
        style=draft.style,
        request=draft.request,
        response=draft.response,
        critical=ground(trajectory, draft, TOOLS),
    )

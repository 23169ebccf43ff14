"""The dataset card and the counts in it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from synthesis.dataset.source import Row
from synthesis.records import Json, Sample, Tool, Trajectory


def count(
    samples: Sequence[Sample],
    trajectories: Mapping[str, Trajectory],
    tools: Mapping[str, Tool],
    rows: Mapping[str, Mapping[str, list[Row]]],
) -> dict[str, Json]:
    """Counts for the manifest and the card; `rows` is keyed by config (`sft`, `preference`), then by side."""
    steps = [step for sample in samples for step in trajectories[sample.trajectory_id].steps]
    groups = [row for side in rows["preference"].values() for row in side]
    negatives = [negative for row in groups for negative in row["meta"]["negatives"]]
    icps = [parameter for sample in samples for parameter in sample.critical]
    return {
        "positives": len(samples),
        "negatives": len(negatives),
        "groups": len(groups),
        "trajectories": len(trajectories),
        "tools": len({step.tool for step in steps}),
        "servers": len({tools[step.tool].server for step in steps}),
        "critical_parameters": len(icps),
        "critical_agreed": sum(p.by_author and p.by_rule for p in icps),
        **{config: {side: len(found) for side, found in sides.items()} for config, sides in rows.items()},
        "by_pattern": _sorted(sample.pattern for sample in samples),
        "by_style": _sorted(sample.style for sample in samples),
        "calls_by_server": _sorted(tools[step.tool].server for step in steps),
        "negatives_by_kind": _sorted(negative["kind"] for negative in negatives),
    }


def _sorted(items: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(items).items()))


def card(counts: Mapping[str, Json], facts: Mapping[str, Json]) -> str:
    """The dataset card, Markdown with the front matter that the Hub reads."""
    tables = "\n\n".join(
        _table(title, head, counts[key])
        for title, head, key in (
            ("Positives by pattern", "pattern", "by_pattern"),
            ("Calls by server", "server", "calls_by_server"),
            ("Negatives by mutation", "kind", "negatives_by_kind"),
        )
    )
    tables += "".join(
        _verdicts(head, counts[key])
        for head, key in (("mutation", "executed_by_kind"), ("server", "executed_by_server"))
        if key in counts
    )
    about = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return _CARD.format(
        tables=tables, about=about, executed=_executed(counts), **{key: counts[key] for key in _IN_CARD}
    )


_IN_CARD = ("positives", "negatives", "groups", "trajectories", "tools", "servers", "sft", "preference")
_CARD = """---
language: en
task_categories: [text-generation]
tags: [tool-calling, function-calling, mcp, preference, intent-deviation]
configs:
- config_name: sft
- config_name: preference
---
# Tool calls as the user meant them

{positives} positives over {trajectories} trajectories of {tools} tools on {servers} real MCP servers; {negatives}
negatives in {groups} groups. Every positive trajectory was executed from end to end in a clean sandbox; every negative
keeps the request and deviates from it in the call, most often in an intent-aware critical parameter. {executed}

- `sft` ({sft[train]} train, {sft[test]} test): `messages`, `tools`, `meta`.
- `preference` ({preference[train]} train, {preference[test]} test): `prompt`, `chosen`, `rejected` (a list of message
  lists: one group a row), `tools`, `meta`.

Read it with `datasets.load_from_disk`. Features are `Json()`, so each row keeps exactly the keys it has. Train and test
share no trajectory, no request and no sequence of calls.

{tables}

## How it was made

{about}
"""


def _executed(counts: Mapping[str, Json]) -> str:
    """What was done with the negatives: whether the tools were asked, and what they said."""
    rows = counts.get("executed_by_kind", {}).values()
    covert, overt, unknown = (sum(row[verdict] for row in rows) for verdict in ("covert", "overt", "not executed"))
    if not covert + overt:
        return "The negatives were\nnot executed: no tool was asked what it says to them."
    some = f" {unknown} could not be executed." if unknown else ""
    return (
        f"The negatives were\nexecuted too: {covert} are `covert`, answered as if all were well, and {overt} `overt`, "
        f"with an error.{some}"
    )


def _table(title: str, head: str, rows: Mapping[str, int]) -> str:
    lines = [f"## {title}", "", f"| {head} | count |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {re.sub(r'[|]', '/', name)} | {number} |" for name, number in rows.items())])


def _verdicts(head: str, rows: Mapping[str, Mapping[str, int]]) -> str:
    """What the real tools said to the deviating calls; shares are of those that were executed and kept."""
    lines = [
        f"## What the tools say, by {head}",
        "",
        f"| {head} | covert | overt | covert share | equivalent, dropped | not executed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    total = {verdict: sum(row[verdict] for row in rows.values()) for verdict in next(iter(rows.values()), {})}
    for name, row in {**rows, **({"all": total} if total else {})}.items():
        executed = row["covert"] + row["overt"]
        share = f"{100 * row['covert'] / executed:.0f} %" if executed else "-"
        lines.append(
            f"| {name} | {row['covert']} | {row['overt']} | {share} | {row['equivalent']} | {row['not executed']} |"
        )
    return "\n\n" + "\n".join(lines)

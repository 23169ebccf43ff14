"""Further views of the report: which tools are taken for which others, and rollouts as dialogues."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthesis.records import Json
from synthesis.seeds import seeded

Rollouts = Mapping[str, Sequence[Mapping[str, Any]]]
"""By arm, lines of its `rollouts.jsonl`."""
WORST_FIRST = ("deviates", "unfinished", "fault", "success")
TEXT = 1200
"""Characters of a message that are shown."""


@dataclass(frozen=True)
class Confusion:
    """A tool that was called where another was asked for, and how often by each arm."""

    asked: str
    called: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Dialogue:
    """A rollout as the report shows it: who spoke, and what; a call is its tool and its arguments."""

    arm: str
    id: str
    trial: int
    verdict: str
    ending: str
    fault: str
    lines: list[tuple[str, str]]


def confusions(results: Mapping[str, Mapping[str, Any]], count: int = 12) -> list[Confusion]:
    """The pairs of tools that were confused most often over all arms: turns in which one call was due and one made."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for arm, result in results.items():
        for turn in (turn for task in result["tasks"] for turn in task.get("turns", [])):
            if len(turn["gold"]) == len(turn["predicted"]) == 1:
                pair = turn["gold"][0]["name"], turn["predicted"][0]["name"]
                if pair[0] != pair[1]:
                    found.setdefault(pair, Counter())[arm] += 1
    ranked = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
    return [Confusion(*pair, {arm: counts[arm] for arm in results}) for pair, counts in ranked[:count]]


def dialogues(rollouts: Rollouts, count: int = 6, seed: int = 0) -> list[Dialogue]:
    """Of each arm `count` rollouts as dialogues, those that went wrong first, drawn at random among equals."""
    found = []
    for arm, lines in rollouts.items():
        drawn = seeded(seed, "rollouts", arm).sample(list(lines), len(lines))
        for line in sorted(drawn, key=lambda each: WORST_FIRST.index(each["verdict"]))[:count]:
            said = [part for message in line["messages"] for part in lines_of(message)]
            facts = (line["verdict"], line.get("ending", ""), line.get("fault", ""))
            found.append(Dialogue(arm, line["id"], line.get("trial", 0), *facts, said))
    return found


def lines_of(message: Mapping[str, Json]) -> list[tuple[str, str]]:
    """A message as lines, (who, text): what was said, and each call as its tool and arguments."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or []]
    said = [(str(message["role"]), _cut(str(message["content"])))] if message.get("content") else []
    return said + [
        ("call", _cut(f"{call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}")) for call in calls
    ]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]} …"

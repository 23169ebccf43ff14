"""Results of arms over made-up tasks."""

from collections.abc import Sequence
from typing import Any

from eval.scores.metrics import Counts

GOLD = [{"name": "excel__read", "arguments": {"sheet": "Orders", "rows": 3}}]
CRITICAL = [{"call": 0, "parameter": "sheet", "value": "Orders"}]


def task(index: int, right: bool, request: str = "Read Orders") -> dict[str, Any]:
    """A task of one turn, done as asked or with the wrong sheet."""
    sheet = "Orders" if right else "Summary"
    turn = {
        "verdict": "exact" if right else "deviates",
        "gold": GOLD,
        "critical": CRITICAL,
        "predicted": [{"name": "excel__read", "arguments": {"sheet": sheet, "rows": 3}}],
        "reply": f"call {sheet}",
        "problem": "",
        "truncated": False,
    }
    common = {
        "calls_valid": 1,
        "calls_predicted": 1,
        "tools_correct": 1,
        "tools_gold": 1,
        "icp_aligned": 1,
        "icp_gold": 1,
    }
    flags = dict.fromkeys(("task", "intent", "match", "icp_equal"), int(right))
    counts = {**Counts().as_dict(), **common, **flags}
    return {
        "id": f"t{index}",
        "pattern": "single",
        "servers": ["excel"],
        "request": request,
        "turns": [turn],
        "counts": counts,
    }


def results_of(**right: Sequence[int]) -> dict[str, Any]:
    """Arm -> result over 60 tasks, of which those in the given range are right."""
    return {arm: {"tasks": [task(i, i in good) for i in range(60)]} for arm, good in right.items()}

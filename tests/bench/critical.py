"""How well the rule finds critical parameters, on labels that nobody here made.

    python tests/bench/critical.py BENCHMARKS

BENCHMARKS (or the environment variable RISE_BENCHMARKS) is a folder with the public benchmarks `nestful/` and
`sealtools/` as their authors published them. Both mark an argument that comes from an earlier call (`$var1.id$`,
`API_call_0`): such a one is not critical (RISE, Eq. 2). Every other argument counts as critical, although some of them
are defaults that the request does not say; so what is reported as recall of "critical" is a lower bound. The rule sees
the request and the arguments, no author's claims and no data flow.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from synthesis.authors.base import Draft
from synthesis.records import Json, Step, Tool, Trajectory
from synthesis.requests.critical import ground
from synthesis.text.kinds import leaves

REFERENCE = re.compile(r"\$?(?:var\w*\.?[^$]*\$|API_call_\d+)")
Item = tuple[str, list[tuple[str, dict[str, Json]]]]
"""A request and its calls, each a name and its arguments."""


def nestful(folder: Path) -> Iterator[Item]:
    """The items of NESTFUL's first release."""
    for path in sorted((folder / "nestful" / "data").rglob("*-data.json")):
        for item in json.loads(path.read_text(encoding="utf-8")):
            yield item["input"], [(c["name"], c["arguments"]) for c in item["output"] if c["name"] != "var_result"]


def sealtools(folder: Path) -> Iterator[Item]:
    """The items of Seal-Tools' three parts."""
    for path in sorted((folder / "sealtools" / "Seal-Tools_Dataset").glob("*.jsonl")):
        if path.name != "tool.jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                item = json.loads(line)
                yield item["query"], [(call["api"], call["parameters"]) for call in item["calling"]]


def is_reference(value: Json) -> bool:
    """Whether any part of the value is marked as coming from an earlier call."""
    return any(isinstance(leaf, str) and REFERENCE.search(leaf) for leaf in leaves(value))


def judge(request: str, calls: list[tuple[str, dict[str, Json]]]) -> Iterator[tuple[bool, bool, Json]]:
    """Yield, for every argument, whether it is labelled critical, whether the rule says so, and its value."""
    steps = [
        Step(turn=turn, tool=name, arguments=arguments, result="", primitive_id="")
        for turn, (name, arguments) in enumerate(calls)
    ]
    tools = {name: Tool(server="", name=name, input_schema={}) for name, _ in calls}
    draft = Draft(request=request, response="", style="", critical=[])
    found = ground(Trajectory(id="", pattern="sequential", steps=steps), draft, tools) if steps else []
    critical = {(parameter.step, parameter.parameter) for parameter in found if parameter.by_rule}
    for index, (_, arguments) in enumerate(calls):
        for name, value in arguments.items():
            yield not is_reference(value), (index, name) in critical, value


def measure(items: Iterator[Item]) -> tuple[Counter[tuple[bool, bool]], list[tuple[str, Json]]]:
    """Counts by (label, rule), and the values that are labelled critical and not found, with their requests."""
    counts: Counter[tuple[bool, bool]] = Counter()
    missed: list[tuple[str, Json]] = []
    for request, calls in items:
        for label, rule, value in judge(request, calls):
            counts[label, rule] += 1
            if label and not rule:
                missed.append((request, value))
    return counts, missed


def rates(counts: Counter[tuple[bool, bool]], positive: bool) -> tuple[float, float]:
    """Precision and recall of the verdict `positive` (critical, or not critical)."""
    right = counts[positive, positive]
    said = right + counts[not positive, positive]
    labelled = right + counts[positive, not positive]
    return right / max(said, 1), right / max(labelled, 1)


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("RISE_BENCHMARKS", "")
    if not given or not Path(given).is_dir():
        print(f"tests/bench/critical.py: no benchmarks at {given!r}. Call it with the folder that holds nestful/ and")
        print("sealtools/, or set RISE_BENCHMARKS to it; nothing was measured.")
        return
    print("benchmark   requests  arguments | critical: precision recall | not critical: precision recall")
    for name, load in (("nestful", nestful), ("sealtools", sealtools)):
        items = list(load(Path(given)))
        counts, missed = measure(iter(items))
        cells = [f"{100 * rate:5.1f} %" for positive in (True, False) for rate in rates(counts, positive)]
        print(
            f"{name:<11} {len(items):>8} {counts.total():>10} | {cells[0]:>19} {cells[1]} | {cells[2]:>23} {cells[3]}"
        )
        for request, value in missed[:: max(1, len(missed) // 5)][:5]:
            print(f"    not found: {json.dumps(value)[:60]} in {request[:120]!r}")


if __name__ == "__main__":
    main()

"""Tables for a page and for a paper, results set side by side, confused tools, and rollouts as dialogues."""

import re
from pathlib import Path
from typing import Any

import pytest
from arms import results_of

from eval.reports.grids import Grid, ablation_grids, benchmark_grid, latex, markdown
from eval.reports.report import power_note, write_report
from eval.reports.side_by_side import side_by_side
from eval.reports.views import confusions, dialogues
from synthesis.errors import UserError


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found = results_of(raw=range(3), sft=range(50))
    for result in found.values():
        for at, task in enumerate(result["tasks"]):
            task["difficulty"] = "hard" if at % 2 else "easy"
            task["turns"][0]["missed"] = []
    return found


@pytest.fixture(scope="module")
def compared(results: dict[str, Any]) -> dict[str, Any]:
    return side_by_side({arm: [result] for arm, result in results.items()})


def test_each_arm_is_tested_against_the_first_and_by_difficulty(compared: dict[str, Any]) -> None:
    assert {(test["a"], test["b"]) for test in compared["tests"]} == {("sft", "raw")}
    assert list(compared["by_difficulty"]) == ["easy", "hard"]
    assert compared["by_difficulty"]["hard"]["arms"]["sft"]["metrics"]["acc_intent"]["n"] == 30
    assert compared["arms"]["sft"]["causes"]["of_request"] == 0


def test_results_on_other_tasks_cannot_be_compared(results: dict[str, Any]) -> None:
    fewer = {**results["sft"], "tasks": results["sft"]["tasks"][1:]}
    with pytest.raises(UserError, match="evaluated on different tasks"):
        side_by_side({"raw": [results["raw"]], "sft": [fewer]})


def test_markdown_has_every_metric_with_interval_and_verdict(compared: dict[str, Any]) -> None:
    text = markdown(ablation_grids(compared))
    assert re.search(r"\| acc_intent \| 5\.0 \(\d+\.\d-\d+\.\d\) \| 83\.3 \(\d+\.\d-\d+\.\d\) ▲ \|", text)
    assert text.count("**") == 6, "all, easy and hard"
    assert power_note(compared) in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {4}


def test_latex_escapes_what_latex_reads(compared: dict[str, Any]) -> None:
    text = latex([*ablation_grids(compared), Grid("50% of a_b & c", ["", "x#1"], [["pass^2", "1 {2}"]])])
    assert r"acc\_intent & 5.0" in text
    assert re.search(r"& 83\.3 \(\d+\.\d-\d+\.\d\) \$\\uparrow\$ \\\\$", text, re.MULTILINE)
    assert r"\caption{50\% of a\_b \& c}" in text
    assert r"pass\^{}2 & 1 \{2\} \\" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4
    assert not re.search(r"(?<!\\)[%#]", text)


def test_a_benchmarks_grid_has_a_column_a_model_and_says_what_is_missing() -> None:
    rate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    first = {"benchmark": "bfcl", "metrics": {"accuracy.own": rate}, "missing": [{"id": "java", "reason": "no Java"}]}
    other = {**first, "metrics": {"accuracy.own": rate, "multiple.own": rate}}
    grid = benchmark_grid({"a": first, "b": other})
    assert grid.columns == ["", "a", "b"]
    assert grid.rows == [["accuracy.own", *["50.0 (25.0-75.0)"] * 2], ["multiple.own", "-", "50.0 (25.0-75.0)"]]
    assert "Not scored: java: no Java." in grid.note


def test_the_tools_that_are_confused_most_come_first() -> None:
    def turn(asked: list[str], called: list[str]) -> dict[str, Any]:
        calls = ([{"name": name, "arguments": {}} for name in names] for names in (asked, called))
        return dict(zip(("gold", "predicted"), calls, strict=True))

    one = {
        "tasks": [{"turns": [turn(["a"], ["b"]), turn(["a"], ["a"]), turn(["a"], []), turn(["a", "b"], ["b", "a"])]}]
    }
    two = {"tasks": [{"turns": [turn(["a"], ["b"]), turn(["c"], ["a"])]}, {"calls": []}]}
    found = confusions({"one": one, "two": two})
    assert [(each.asked, each.called, each.counts) for each in found] == [
        ("a", "b", {"one": 1, "two": 1}),
        ("c", "a", {"one": 0, "two": 1}),
    ]
    assert len(confusions({"one": one, "two": two}, count=1)) == 1


def rollout(id_: str, verdict: str, **more: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "book", "arguments": {"day": 20}}}
    messages = [
        {"role": "user", "content": "Book the <b>19th</b>"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "book", "content": "x" * 2000},
        {"role": "assistant", "content": "Done."},
    ]
    return {"id": id_, "verdict": verdict, "ending": "words", "messages": messages, **more}


def test_rollouts_that_went_wrong_are_shown_first_as_dialogues(
    compared: dict[str, Any], results: dict[str, Any], tmp_path: Path
) -> None:
    played = [rollout("good", "success"), rollout("dead", "fault", fault="f died"), rollout("bad", "deviates", trial=1)]
    found = dialogues({"sft": played}, count=2)
    assert [(each.id, each.verdict, each.trial) for each in found] == [("bad", "deviates", 1), ("dead", "fault", 0)]
    assert found[0].lines[:2] == [("user", "Book the <b>19th</b>"), ("call", 'book {"day": 20}')]
    assert found[0].lines[2][1].endswith(" …")
    live = {
        "tasks": [{key: value for key, value in task.items() if key != "turns"} for task in results["sft"]["tasks"]]
    }
    shown = side_by_side({"raw": [results["raw"]], "sft": [live]})
    write_report(shown, {"raw": results["raw"], "sft": live}, {}, tmp_path / "page.html", {"sft": played})
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;19th" in page
    assert "<b>19th" not in page
    assert "trial 2" in page
    assert "f died" in page

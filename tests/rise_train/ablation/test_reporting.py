"""`rise report`: results by name, in every form, and what cannot be set side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.benchmarks.bench import bench
from rise_train.ablation.reporting import report
from synthesis.errors import UserError


def evaluated(path: Path, model: str, right: int, **more: Any) -> Path:
    """A result file of ten tasks, of which so many are right."""
    from eval.scores.metrics import Counts

    tasks = []
    for at in range(10):
        good = int(at < right)
        common = {"calls_valid": 1, "calls_predicted": 1, "tools_correct": 1, "tools_gold": 1, "icp_gold": 1}
        flags = dict.fromkeys(("task", "intent", "match", "icp_equal"), good)
        counts = {**Counts().as_dict(), **common, "icp_aligned": 1, **flags, "task.executed": good}
        tasks.append({"id": f"t{at}", "difficulty": "easy", "pattern": "single", "request": "?", "counts": counts})
    rates = {"acc_intent": {"value": right / 10, "low": 0, "high": 1, "n": 10}}
    path.write_text(json.dumps({"model": model, "dataset": "d", "metrics": rates, "tasks": tasks, **more}))
    return path


def test_result_files_are_compared_by_name_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = evaluated(tmp_path / "one.json", "models/base", 0)
    two = evaluated(tmp_path / "two.json", "models/tuned", 10, mode="live")
    said = {"id": "t0", "verdict": "success", "ending": "words", "messages": [{"role": "user", "content": "Hello?"}]}
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "rollouts.jsonl").write_text(json.dumps(said) + "\n")
    page, md, tex, out = (tmp_path / "out" / name for name in ("p.html", "t.md", "t.tex", "t.json"))
    report([str(one), f"mine={two}"], page, md, tex, out)
    printed = capsys.readouterr().out
    assert "mine against base: better on" in printed
    assert "acc_task.executed" in printed
    assert "| acc_intent | 0.0" in md.read_text()
    assert r"acc\_intent & 0.0" in tex.read_text()
    found = json.loads(out.read_text())
    assert list(found["arms"]) == ["base", "mine"]
    assert {test["b"] for test in found["tests"]} == {"base"}
    assert "Hello?" in page.read_text()


def test_benchmarks_are_set_side_by_side_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"query": "90 days on?", "api_descriptions": "", "action": "add_date", "action_input": '{"days": 90}'}
    (tmp_path / "tool_test.json").write_text(json.dumps({"add_date": [asked]}))
    for name in ("no_op", "gold"):
        bench("ste", tmp_path, f"policy:{name}", tmp_path / f"{name}.json")
    report([str(tmp_path / "no_op.json"), f"right={tmp_path / 'gold.json'}"], markdown_out=tmp_path / "t.md")
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[2] == "|  | policy:no_op | right |"
    assert any(line.startswith("| by_text.own | 0.0 (0.0-") and "100.0" in line for line in lines)
    assert "by_text.exact" in capsys.readouterr().out
    with pytest.raises(UserError, match="--output: a page is made of evaluations"):
        report([str(tmp_path / "no_op.json")], tmp_path / "page.html")
    other = evaluated(tmp_path / "eval.json", "m", 3)
    with pytest.raises(UserError, match="expected results of one kind, found an evaluation of tasks, ste"):
        report([str(tmp_path / "no_op.json"), str(other)])


def test_what_is_no_result_is_one_sentence(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one.json", "m", 3)
    with pytest.raises(UserError, match="m: two results go by that name"):
        report([str(one), str(one)])
    for text in ("{", "[]", '{"metrics": {}, "model": "m"}'):
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(UserError, match=r"odd\.json: expected"):
            report([str(tmp_path / "odd.json")])
    with pytest.raises(UserError, match="expected a folder in which `rise ablate` has finished"):
        report([str(tmp_path)])

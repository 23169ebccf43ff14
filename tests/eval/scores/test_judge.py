"""A judge over the real protocol: its scores, their agreement with rules and people, and a run that goes on."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from endpoint import Model, Reply

from eval.benchmarks.data_quality import data_quality
from eval.replies.calls import Call
from eval.scores.judge import COUNTS, agreement, open_judge, rates
from eval.scores.quality import Example
from rise_train import cli
from synthesis.errors import UserError

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"properties": {"date": {"type": "string"}}}}}]
RIGHT = Example("a", "19 January 2026", TOOLS, [Call("look", {"date": "2026-01-19"})], ["<b>free</b>"], "It is free.")
WRONG = Example("b", "20 January 2026", TOOLS, [Call("look", {"date": "2026-01-19"})])
FIVES = {"naturalness": 5, "tool_relevance": 5, "chain_coherence": 5} | dict.fromkeys(
    ("name_validity", "value_validity", "value_consistency"), 5
)


def said(**scores: int) -> Reply:
    return Reply(json.dumps({"fault": "none", **FIVES, **scores}))


def scores(model: Model, folder: Path, *examples: Example) -> list[dict[str, int] | None]:
    with ExitStack() as files:
        return open_judge(f"{model.url}#m-1", folder, files).scores(examples, lambda _: None)


def test_the_judge_sees_the_example_as_data_and_scores_what_it_has(tmp_path: Path) -> None:
    with Model([said(response_correctness=2)]) as model:
        assert scores(model, tmp_path, RIGHT) == [{**FIVES, "response_correctness": 2}]
    [request] = model.requests
    asked = request["messages"][1]["content"]
    assert r"\u003cb\u003efree" in asked, "what a tool wrote cannot close its fence"
    assert "It is free." in asked
    assert request["temperature"] == 0.0
    with Model([said()]) as model:
        assert scores(model, tmp_path, WRONG) == [FIVES]
    assert "response_correctness" not in json.dumps(model.requests), "an example without a response has none to judge"


def test_scores_outside_the_scale_go_back_and_what_stays_wrong_is_not_judged(tmp_path: Path) -> None:
    with Model([said(naturalness=6), said(naturalness=3)]) as model:
        [found] = scores(model, tmp_path / "mended", WRONG)
        assert found is not None
        assert found["naturalness"] == 3
    with Model([Reply("fine!")] * 3) as model:
        assert scores(model, tmp_path / "never", WRONG) == [None]


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    with Model([said()]) as model:
        first = scores(model, tmp_path, WRONG)
        assert scores(model, tmp_path, WRONG) == first
        assert len(model.requests) == 1


def test_both_mappings_of_the_scale() -> None:
    found = rates([FIVES, {**FIVES, "naturalness": 1}, None])
    assert list(found) == [f"{count}.judge" for count in COUNTS]
    rate = found["naturalness.judge"]
    assert (rate["value"], rate["fifths"], rate["n"]) == (0.5, 0.6, 2)
    assert found["response_correctness.judge"]["n"] == 0


def test_agreement_with_rules_and_people() -> None:
    doubting = {**FIVES, "value_consistency": 2}
    found = agreement([RIGHT, WRONG, WRONG, RIGHT], [FIVES, doubting, FIVES, None])
    assert found["value_consistency"] == pytest.approx({"share": 2 / 3, "kappa": 0.4, "n": 3})
    assert found["name_validity"] == {"share": 1.0, "kappa": None, "n": 3}, "where all are right, chance explains it"
    solved = [Example(str(at), "x", (), [], (), "Done.", solved=at < 2) for at in range(4)]
    told = [{**FIVES, "response_correctness": score} for score in (5, 2, 2, 1)]
    assert agreement(solved, told) == {"response_correctness": {"share": 0.75, "kappa": 0.5, "n": 4}}


def livemcpbench(folder: Path) -> Path:
    def call(number: str, name: str, **arguments: Any) -> dict[str, Any]:
        return {"id": number, "function": {"name": name, "arguments": json.dumps(arguments)}}

    calls = [call("1", "route", query="x"), call("2", "execute-tool", tool_name="load", params={"file": "a.wav"})]
    messages = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "2", "content": "loaded"},
    ]
    row = {"task_id": "t", "Question": "Load a.wav", "messages": messages, "response": "Done."}
    (folder / "annotation").mkdir(parents=True)
    (folder / "annotation/agent.json").write_text(json.dumps([{**row, "task_success": "failure"}]))
    return folder


def test_one_command_writes_rates_of_rules_and_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, out = f"livemcpbench:{livemcpbench(tmp_path / 'lmb')}", tmp_path / "q.json"
    with Model([said(response_correctness=5)]) as model, pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["quality", name, "--judge", f"{model.url}#m-1", "--json", str(out)])
    written = json.loads(out.read_text())
    assert written["metrics"]["response_correctness.judge"] == pytest.approx(
        {"value": 1.0, "low": 0.2, "high": 1.0, "n": 1, "fifths": 1.0}, abs=0.01
    )
    assert written["missing"] == []
    assert written["engine"]["judge"] == "m-1"
    assert written["metrics"]["name_validity"]["n"] == 0, "no schemas, so no rule"
    entry = written["datasets"][name]
    assert entry["agreement"] == {"response_correctness": {"share": 0.0, "kappa": 0.0, "n": 1}}
    shown = capsys.readouterr().out
    assert "judge and people agree on 0% of 1" in shown
    asked = model.requests[0]["messages"][1]["content"]
    assert '"load"' in asked
    assert "route" not in asked


def test_a_judge_that_cannot_be_asked_is_one_sentence(tmp_path: Path) -> None:
    name = f"livemcpbench:{livemcpbench(tmp_path)}"
    with Model([Reply(status=404, error={"error": {"message": "no such model"}})]) as model:
        judge = f"{model.url}#m-1"
        with pytest.raises(UserError, match=f"^--judge {judge}: HTTP 404.*the same command goes on"):
            data_quality([name], tmp_path / "q.json", judge=judge)
    with pytest.raises(UserError, match="--judge: expected --json"):
        data_quality([name], judge="http://127.0.0.1:9/v1#m")
    with pytest.raises(UserError, match="--judge nowhere: expected URL#MODEL"):
        data_quality([name], tmp_path / "q.json", judge="nowhere")

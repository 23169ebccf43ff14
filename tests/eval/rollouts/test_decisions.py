"""The step-wise rollout, from a dataset on disk and a real model to a result file."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.policies.base import Keep, Prompt, keep_nothing
from eval.replies.calls import NO_CALL, Call, Reply
from eval.rollouts.decisions import HALVES, evaluate, load_tasks, task_of
from eval.rollouts.reply_journal import identity
from eval.scores.columns import NORMALISED
from eval.scores.compare import compare
from eval.scores.metrics import METRICS
from synthesis.dataset.writing import SFT, save
from synthesis.errors import UserError
from synthesis.json_file import write_json


class Scripted:
    """Answers what `answer` makes of a prompt."""

    def __init__(self, answer: Callable[[Prompt], Reply]) -> None:
        self.name = "scripted"
        self.parallel = True
        self.answer = answer

    def reply(
        self, prompts: Sequence[Prompt], progress: Callable[[int], None], keep: Keep = keep_nothing
    ) -> list[Reply]:
        replies = []
        for at, prompt in enumerate(prompts):
            replies.append(self.answer(prompt))
            keep(at, replies[-1])
            progress(1)
        return replies


def test_rows_are_cut_where_calls_are_due(kit: Any, rows: list[dict[str, Any]]) -> None:
    task = task_of(rows[2])
    first, second = task.decisions
    assert [m["role"] for m in first.prompt.messages] == ["user"]
    assert [m["role"] for m in second.prompt.messages] == ["user", "assistant", "tool"]
    assert second.prompt.messages[2]["content"] == "north 12", "the recorded result is in the prompt"
    assert (first.gold[0].name, second.gold[0].arguments) == ("excel__read", {"sheet": "Orders", "rows": 3})
    assert [entry["parameter"] for entry in second.critical] == ["rows"]
    assert first.prompt.tools == kit.tools


def test_a_model_that_knows_the_answers_gets_full_marks(drilled_model: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "result.json"
    result = evaluate(drilled_model, dataset, json_out=out, batch_size=3, max_new_tokens=96)
    metrics = result["metrics"]
    assert {name: rate["value"] for name, rate in metrics.items() if not name.endswith("_rate")} == {
        name: 1.0
        for m in METRICS
        for name in [m.name, *(f"{m.name}.{column}" for column in ("exact", "normalised") if m.name in NORMALISED)]
    }
    assert {rate["value"] for name, rate in metrics.items() if name.endswith("_rate")} == {0.0}
    assert (result["missing"], result["engine"]["kind"], result["engine"]["dtype"]) == ([], "transformers", "float32")
    assert {m.name: metrics[m.name]["n"] for m in METRICS} == {
        "acc_task": 3,
        "acc_intent": 3,
        "trajectory_match": 3,
        "acc_call": 5,
        "tool_precision": 5,
        "tool_recall": 5,
        "acc_icp": 6,
        "acc_icp_all": 6,
        "stops": 3,
    }
    assert (result["n_tasks"], result["n_turns"], result["split"]) == (3, 4, "test")
    assert [turn["verdict"] for task in result["tasks"] for turn in task["turns"]] == ["exact"] * 4
    assert set(result["by_pattern"]) == {"single", "parallel", "sequential"}
    assert json.loads(out.read_text()) == result
    assert [p.name for p in out.parent.iterdir()] == ["result.json"]


def test_an_untrained_model_gets_none_and_its_replies_are_kept(
    raw_model: Path, dataset: Path, drilled_model: Path
) -> None:
    raw = evaluate(raw_model, dataset, max_new_tokens=64)
    assert raw["metrics"].pop("stops")["value"] == 1, "whoever never calls does not call on"
    assert all(rate["value"] == 0 and rate["high"] > 0 for rate in raw["metrics"].values())
    assert raw["metrics"]["acc_call"]["n"] == 4, "silence counts as one invalid call a turn"
    assert raw["problems"] == {"without_readable_call": 4, "cut_off_at_token_limit": 4}
    assert all(turn["reply"] and turn["verdict"] == "unreadable" for task in raw["tasks"] for turn in task["turns"])
    drilled = evaluate(drilled_model, dataset, max_new_tokens=96)
    tests = compare({"raw": [raw], "sft": [drilled]})
    assert [t["difference"] for t in tests if t["metric"] in ("acc_task", "acc_call")] == [1.0, 1.0]
    assert {t["verdict"] for t in tests} == {"no difference"}, "three tasks prove nothing"


def test_a_limit_below_the_right_replies_is_refused(drilled_model: Path, dataset: Path) -> None:
    with pytest.raises(UserError, match=r"--max-new-tokens 12: expected \d\d at least, as many tokens as the right"):
        evaluate(drilled_model, dataset, max_new_tokens=12)


def test_verdicts_and_odd_values_reach_the_result_file(dataset: Path, tmp_path: Path) -> None:
    def odd(prompt: Prompt) -> Reply:
        return Reply("\ud800", (Call("excel__read", {"sheet": "summary\ud800", "rows": 10}),))

    out = tmp_path / "r.json"
    result = evaluate("x", dataset, json_out=out, policy=Scripted(odd))
    assert {turn["verdict"] for task in result["tasks"] for turn in task["turns"]} == {"deviates"}
    assert json.loads(out.read_text())["tasks"][0]["turns"][0]["reply"] == "\ud800"


def test_a_default_that_is_written_out_is_equivalent_not_exact(dataset: Path) -> None:
    spelled = Scripted(lambda prompt: Reply("", (Call("excel__read", {"sheet": "SUMMARY", "rows": 10}),)))
    tasks = {task["id"]: task for task in evaluate("x", dataset, policy=spelled)["tasks"]}
    assert [turn["verdict"] for turn in tasks["row2"]["turns"]] == ["equivalent", "deviates"]


def test_a_limit_is_a_seeded_sample(dataset: Path) -> None:
    picked = [[task.id for task in load_tasks(dataset, limit=2, seed=seed)] for seed in range(6)]
    assert picked[0] == [task.id for task in load_tasks(dataset, limit=2, seed=0)]
    assert all(len(ids) == 2 for ids in picked)
    assert len({tuple(ids) for ids in picked}) > 1
    assert len(load_tasks(dataset, limit=99)) == 3


def test_a_split_has_two_halves_and_equal_calls_are_in_one(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    many = []
    for index in range(40):
        row = copy.deepcopy(rows[0])
        row["messages"][1]["tool_calls"][0]["function"]["arguments"]["time"] = f"{index // 2}:00"
        row["messages"][0]["content"] = f"request {index}"
        many.append({**row, "meta": {**row["meta"], "id": f"row{index:02}", "critical": []}})
    save({"test": many}, SFT, tmp_path / "sft")
    halves = [{task.id for task in load_tasks(tmp_path, half=half)} for half in HALVES]
    assert halves[0] | halves[1] == {row["meta"]["id"] for row in many}
    assert not halves[0] & halves[1]
    assert 10 < len(halves[0]) < 30
    for half in halves:
        assert all(f"row{int(name[3:]) ^ 1:02}" in half for name in half), "requests with equal calls stay together"
    with pytest.raises(UserError, match="half: expected validation or final, found third"):
        load_tasks(tmp_path, half="third")


def test_easy_and_hard_tasks_are_told_apart(dataset: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    labels: list[list[str]] = [[], ["correction"], ["reference", "same_type"]]
    marked = [{**row, "meta": {**row["meta"], "difficulty": d}} for row, d in zip(rows, labels, strict=True)]
    save({"test": marked}, SFT, tmp_path / "sft")
    silent = Scripted(lambda prompt: Reply("", problem="nothing"))
    result = evaluate("x", tmp_path, policy=silent)
    assert [task["difficulty"] for task in result["tasks"]] == ["easy", "hard", "hard"]
    assert {name: part["acc_task"]["n"] for name, part in result["by_difficulty"].items()} == {"easy": 1, "hard": 2}
    assert set(evaluate("x", dataset, policy=silent)["by_difficulty"]) == {"easy"}


def test_a_missing_dataset_or_split_is_one_sentence(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset there"):
        load_tasks(tmp_path)
    with pytest.raises(UserError, match="no split 'train'; there are test"):
        load_tasks(dataset, "train")


def test_a_critical_parameter_of_no_call_is_refused(rows: list[dict[str, Any]]) -> None:
    for change in ({"turn": 3}, {"call": 1}):
        broken = copy.deepcopy(rows[0])
        broken["meta"]["critical"][0] |= change
        with pytest.raises(UserError, match=r"row0: meta\.critical"):
            task_of(broken)


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_progress_is_told_in_plain_lines_where_there_is_no_terminal(dataset: Path, quiet: Callable[[], str]) -> None:
    evaluate("x", dataset, policy=Scripted(lambda prompt: Reply("", (), "no tool call in the reply")))
    assert "evaluating scripted: 7 of 7 turns" in quiet()


def test_a_model_with_one_call_a_turn_is_asked_for_one_at_a_time(dataset: Path) -> None:
    asked: list[Prompt] = []

    def answer(prompt: Prompt) -> Reply:
        asked.append(prompt)
        return Reply("", (), "no tool call in the reply")

    policy = Scripted(answer)
    policy.parallel = False
    result = evaluate("x", dataset, policy=policy)
    assert (result["n_turns"], len(asked)) == (5, 8)
    assert all(len(m.get("tool_calls", [])) < 2 for prompt in asked for m in prompt.messages)
    task = next(task for task in result["tasks"] if task["pattern"] == "parallel")
    assert [[call["name"] for call in turn["gold"]] for turn in task["turns"]] == [["excel__read"], ["time__convert"]]
    assert [len(turn["critical"]) for turn in task["turns"]] == [2, 0]


def test_calling_on_after_the_end_is_measured(dataset: Path) -> None:
    on = Reply("", (Call("excel__read", {"sheet": "Summary"}),))
    result = evaluate("x", dataset, policy=Scripted(lambda prompt: on))
    assert (result["metrics"]["stops"]["value"], result["metrics"]["stops"]["n"]) == (0.0, 3)
    assert result["tasks"][0]["closing"]["predicted"] == [on.calls[0].as_dict()]
    broken = evaluate("x", dataset, policy=Scripted(lambda prompt: Reply("<tool_call>", problem="unreadable")))
    assert broken["metrics"]["stops"]["value"] == 0.0
    done = evaluate("x", dataset, policy=Scripted(lambda prompt: Reply("Done.", problem=NO_CALL)))
    assert done["metrics"]["stops"]["value"] == 1.0


def test_parallel_calls_that_were_put_in_a_row_are_free_in_order(dataset: Path, rows: list[dict[str, Any]]) -> None:
    read, convert = (
        Call(c["function"]["name"], c["function"]["arguments"]) for c in rows[1]["messages"][1]["tool_calls"]
    )

    def scored(*replies: Call) -> dict[str, Any]:
        said = iter(replies)
        policy = Scripted(lambda prompt: Reply("", (next(said),)) if "Read 3 rows" in str(prompt) else Reply("x"))
        policy.parallel = False
        return next(t for t in evaluate("x", dataset, policy=policy)["tasks"] if t["pattern"] == "parallel")

    forth, back = scored(read, convert, read), scored(convert, convert, read)
    assert (forth["counts"]["task"], forth["counts"]["match"]) == (1, 1)
    assert (back["counts"]["task"], back["counts"]["match"]) == (1, 1), "what is still to do when the first is done"
    assert scored(read, read, read)["counts"]["task"] == 0, "the first is done by then"


def test_an_evaluation_that_was_stopped_goes_on_where_it_was(dataset: Path, tmp_path: Path) -> None:
    asked: list[Prompt] = []

    def answer(prompt: Prompt) -> Reply:
        asked.append(prompt)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return Reply(f"reply {len(asked)} \ud800", (Call("excel__read", {"sheet": "A\ud800"}),))

    out = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate("x", dataset, json_out=out, policy=Scripted(answer))
    assert not out.exists()
    result = evaluate("x", dataset, json_out=out, policy=Scripted(answer))
    assert len(asked) == 8, "7 prompts, of which one was asked twice"
    assert result["tasks"][0]["turns"][0]["reply"] == "reply 1 \ud800"
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    assert evaluate("x", dataset, json_out=out, policy=Scripted(answer))["tasks"] != result["tasks"], "a new evaluation"


def test_replies_of_a_model_that_has_changed_since_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("one")
    before = identity(str(tmp_path))
    assert identity(str(tmp_path)) == before
    (tmp_path / "model.safetensors").write_text("three")
    assert identity(str(tmp_path)) != before

"""The closed loop on real servers: what counts as done, clean states, faults that are not the agent's, going on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broken import FAULTY

from eval.policies.base import Prompt
from eval.policies.scripted import GOLD, ScriptedPolicy
from eval.replies.calls import NO_CALL, Call, Reply
from eval.rollouts.live import evaluate_live
from eval.rollouts.talk import Limits
from synthesis.errors import UserError

ROOT = Path(__file__).parents[3]
BIN = ROOT / ".servers" / "mcp1" / "bin"
ANY = {"type": "object"}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": ANY}}
    for name in ("f__write", "f__read", "f__die", "f__slow", "calculator__calculate", "chess__make_move")
]
Row = dict[str, Any]


def call(name: str, **arguments: Any) -> Call:
    return Call(name, arguments)


def row(name: str, *turns: list[Call]) -> Row:
    """A task: its turns' right calls; the request is its name."""
    messages: list[Row] = [{"role": "user", "content": name}]
    for turn in turns:
        calls = [{"type": "function", "function": each.as_dict()} for each in turn]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages += [{"role": "tool", "name": each.name, "content": "as it was"} for each in turn]
    messages.append({"role": "assistant", "content": "Done."})
    critical = [
        {"turn": t, "call": c, "parameter": parameter, "value": value}
        for t, turn in enumerate(turns)
        for c, each in enumerate(turn)
        for parameter, value in each.arguments.items()
    ]
    return {"messages": messages, "tools": TOOLS, "meta": {"id": name, "critical": critical}}


NOTE = call("f__write", path="/data/note.txt", text="milk")
LOOK = call("f__read", path="/data/note.txt")
SUM = call("calculator__calculate", expression="7 * 26")
OPEN, ANSWER = call("chess__make_move", move_san="e4"), call("chess__make_move", move_san="e5")
ROWS = [row("note", [NOTE], [LOOK]), row("sum", [SUM]), row("chess", [OPEN], [ANSWER])]


@pytest.fixture
def servers(tmp_path: Path) -> Path:
    """A servers file with state in files (`f`), in memory (`chess`), and none (`calculator`)."""
    entries = {
        "f": {
            "command": sys.executable,
            "args": [FAULTY],
            "rise": {"allow": "all", "state": "files", "timeout_s": 5},
        },
        "calculator": {"command": str(BIN / "mcp-server-calculator"), "rise": {"allow": "all", "state": "none"}},
        "chess": {"command": str(BIN / "mcp-chess"), "rise": {"allow": "all", "state": "memory"}},
    }
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": entries}))
    return path


def dataset(folder: Path, rows: list[Row]) -> Path:
    """The rows as the `test` split of a dataset folder."""
    from datasets import Dataset, DatasetDict, Features, Json, List

    features = Features({"messages": List(Json()), "tools": List(Json()), "meta": Json()})
    DatasetDict({"test": Dataset.from_list(rows, features=features)}).save_to_disk(folder / "data" / "sft")
    return folder / "data"


def playing(script: dict[str, list[list[Call] | str]]) -> ScriptedPolicy:
    """The policy that goes through a list of turns for each request; words, or anything left over, end it."""

    def answer(prompt: Prompt) -> Reply:
        at = sum(message["role"] == "assistant" for message in prompt.messages)
        turns = script[prompt.messages[0]["content"]]
        turn = turns[at] if at < len(turns) else "Done."
        return Reply(turn, problem=NO_CALL) if isinstance(turn, str) else Reply("calls", tuple(turn))

    return ScriptedPolicy("policy:script", answer)


Play = Callable[..., dict[str, Row]]


@pytest.fixture
def play(tmp_path: Path, servers: Path) -> Play:
    """Plays the rows by a script; returns the entries of the result by id, the result itself under ``."""

    def run(script: dict[str, list[list[Call] | str]], rows: list[Row] = ROWS, **options: Any) -> dict[str, Row]:
        chosen = [each for each in rows if each["messages"][0]["content"] in script]
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        result = evaluate_live(
            "script", dataset(folder, chosen), servers, folder / "live.json", policy=playing(script), **options
        )
        assert json.loads((folder / "live.json").read_text())["mode"] == "live"
        return {entry["id"]: entry for entry in result["tasks"]} | {"": result}

    return run


def test_the_right_calls_succeed_and_score_1_on_everything(tmp_path: Path, servers: Path) -> None:
    result = evaluate_live(GOLD, dataset(tmp_path, ROWS), servers, tmp_path / "gold.json")
    assert {entry["id"]: entry["verdict"] for entry in result["tasks"]} == dict.fromkeys(
        ["note", "sum", "chess"], "success"
    )
    too_much = {"distractor_rate", "extra_argument_rate", "redundant_call_rate"}
    assert {name for name, rate in result["metrics"].items() if rate["value"] != 1} == too_much
    assert all(result["metrics"][name]["value"] == 0 for name in too_much)
    assert (result["missing"], result["n_tasks"], result["calls_per_task"]) == ([], 3, 5 / 3)


def test_another_way_to_the_same_end_counts_as_executed_and_not_as_exact(play: Play) -> None:
    found = play(
        {
            "note": [[call("f__write", path="/data/note.txt", text="eggs")], [NOTE, LOOK]],
            "sum": [[call("calculator__calculate", expression="26*7")]],
        }
    )
    assert [found[name]["verdict"] for name in ("note", "sum")] == ["success", "success"]
    metrics = found[""]["metrics"]
    assert metrics["acc_task.executed"]["value"] == 1
    assert metrics["acc_intent"]["value"] == 0
    assert (metrics["acc_task.exact"]["value"], metrics["acc_task.normalised"]["value"]) == (0.5, 1)  # 7 * 26 is 26*7


@pytest.mark.parametrize(
    "turns",
    [
        [],  # nothing done
        [[NOTE]],  # not looked
        [[call("f__write", path="/data/note.txt", text="milk ")], [LOOK]],  # another text
        [[NOTE], [LOOK], [call("f__write", path="/data/other.txt")]],  # more than was asked
        [[call("f__write", path="/data/Note.txt", text="milk")], [call("f__read", path="/data/Note.txt")]],
    ],
)
def test_what_comes_to_something_else_deviates(play: Play, turns: list[list[Call] | str]) -> None:
    assert play({"note": turns})["note"]["verdict"] == "deviates"


@pytest.mark.parametrize(
    ("turns", "verdict"),
    [
        ([[OPEN], [ANSWER]], "success"),
        ([[OPEN, ANSWER]], "success"),
        ([[ANSWER], [OPEN], [ANSWER]], "success"),  # black cannot begin: the server said no, and nothing was done
        ([[OPEN]], "deviates"),
        ([[OPEN], [call("chess__make_move", move_san="c5")]], "deviates"),
        ([[OPEN], [ANSWER], [call("chess__make_move", move_san="Nf3")]], "deviates"),
    ],
)
def test_memory_that_nobody_can_look_into_is_judged_by_its_changes(
    play: Play, turns: list[list[Call] | str], verdict: str
) -> None:
    assert play({"chess": turns})["chess"]["verdict"] == verdict


def test_no_task_sees_what_another_left(tmp_path: Path, servers: Path) -> None:
    plant = call("f__write", path="/data/plant.txt", text="from before")
    seek = call("f__read", path="/data/plant.txt")
    rows = [row(f"plant {i}", [plant]) for i in range(3)] + [row(f"seek {i}", [plant], [seek]) for i in range(3)]
    script: dict[str, list[list[Call] | str]] = {f"plant {i}": [[plant]] for i in range(3)}
    script |= {f"seek {i}": [[seek]] for i in range(3)}
    result = evaluate_live(
        "script", dataset(tmp_path, rows), servers, tmp_path / "live.json", policy=playing(script), sets=2
    )
    sought = [made for entry in result["tasks"] for made in entry["calls"] if made["name"] == "f__read"]
    assert len(sought) == 3
    assert all(made["is_error"] and "from before" not in made["result"] for made in sought)


def test_a_server_that_dies_is_a_fault_by_name_and_no_verdict(play: Play) -> None:
    found = play({"note": [[call("f__die")]], "sum": [[SUM]]}, sets=1)
    assert list(found) == ["sum", ""]
    (missing,) = found[""]["missing"]
    assert missing["id"] == "note"
    assert missing["reason"].startswith("f: gave no answer to f__die")
    assert found[""]["verdicts"] == {"fault": 1, "success": 1}


def test_no_task_that_can_be_judged_is_one_sentence(play: Play) -> None:
    with pytest.raises(UserError, match="no task could be judged: f: gave no answer to f__die"):
        play({"note": [[call("f__die")]]})


def test_a_tool_that_the_prompt_does_not_offer_reaches_no_server(play: Play) -> None:
    rows = [row("sum", [SUM])]
    rows[0]["tools"] = [tool for tool in TOOLS if tool["function"]["name"] != "f__write"]
    found = play({"sum": [[NOTE], [SUM]]}, rows)
    first, second = found["sum"]["calls"]
    assert (first["result"], first["is_error"], second["is_error"]) == ("Unknown tool: f__write", True, False)
    assert found["sum"]["verdict"] == "success"
    assert found[""]["metrics"]["distractor_rate"]["value"] == 0.5


def test_limits_end_a_task_and_a_repeated_call_is_counted(play: Play) -> None:
    found = play({"sum": [[SUM]] * 9}, limits=Limits(turns=4))
    assert (found["sum"]["verdict"], found["sum"]["ending"]) == ("unfinished", "turns")
    assert found[""]["metrics"]["redundant_call_rate"]["value"] == 0.75
    assert found[""]["metrics"]["stops"]["value"] == 0
    slow = play({"sum": [[call("f__slow", seconds=0.3)]] * 9}, limits=Limits(seconds=0.2))
    assert (slow["sum"]["verdict"], slow["sum"]["ending"]) == ("unfinished", "seconds")


def test_a_reply_that_cannot_be_read_ends_the_task_as_one_wrong_call(tmp_path: Path, servers: Path) -> None:
    policy = ScriptedPolicy("policy:broken", lambda _: Reply("<tool_call>{", problem="unreadable tool call: {"))
    result = evaluate_live("x", dataset(tmp_path, ROWS[1:2]), servers, tmp_path / "live.json", policy=policy)
    (entry,) = result["tasks"]
    assert (entry["verdict"], entry["ending"]) == ("deviates", "unreadable")
    assert result["metrics"]["acc_call"] == {**result["metrics"]["acc_call"], "value": 0.0, "n": 1}


def test_a_task_whose_right_calls_err_now_is_missing_with_the_reason(play: Play) -> None:
    gone = row("gone", [call("f__read", path="/data/nothing.txt")])
    found = play({"gone": [], "sum": [[SUM]]}, [gone, *ROWS])
    (missing,) = found[""]["missing"]
    assert missing["reason"].startswith("the right call of f__read errs now: FileNotFoundError")


def test_rollouts_of_another_configuration_are_not_mixed(tmp_path: Path, servers: Path) -> None:
    data = dataset(tmp_path, ROWS[1:2])
    evaluate_live(GOLD, data, servers, tmp_path / "live.json")
    before = (tmp_path / "live" / "rollouts.jsonl").read_bytes()
    evaluate_live(GOLD, data, servers, tmp_path / "live.json")
    assert (tmp_path / "live" / "rollouts.jsonl").read_bytes() == before
    with pytest.raises(UserError, match="made with another model, dataset, servers file or limits"):
        evaluate_live(GOLD, data, servers, tmp_path / "live.json", limits=Limits(turns=3))


def test_a_result_that_would_have_the_name_of_its_folder_is_refused_at_once(tmp_path: Path, servers: Path) -> None:
    with pytest.raises(UserError, match=r"out: expected a name with an ending, as OUT\.json"):
        evaluate_live(GOLD, dataset(tmp_path, ROWS), servers, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_killed_at_any_moment_it_ends_in_the_same_log(tmp_path: Path, servers: Path) -> None:
    rows = [row(f"note {i}", [call("f__write", path=f"/data/{i}.txt", text="x")]) for i in range(12)]
    data = dataset(tmp_path, rows)
    command = [sys.executable, "-m", "rise_train.cli", "eval", GOLD, "--dataset", str(data), "--live", str(servers)]
    command += ["--sets", "1"]
    whole, torn = tmp_path / "whole.json", tmp_path / "torn.json"
    subprocess.run([*command, "--json", str(whole)], check=True, cwd=ROOT, capture_output=True)
    log = tmp_path / "torn" / "rollouts.jsonl"
    for wanted in (1, 4, 8):
        with subprocess.Popen(
            [*command, "--json", str(torn)], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < wanted):
                time.sleep(0.01)
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
        with log.open("ab") as file:
            file.write(b'{"id": "torn')
    subprocess.run([*command, "--json", str(torn)], check=True, cwd=ROOT, capture_output=True)
    assert log.read_bytes() == (tmp_path / "whole" / "rollouts.jsonl").read_bytes()


def test_trials_of_a_task_are_played_each_from_a_clean_sandbox_and_counted(tmp_path: Path, servers: Path) -> None:
    begun: Counter[str] = Counter()
    rows, right = [row("note", [NOTE]), row("sum", [SUM])], {"note": NOTE, "sum": SUM}

    def answer(prompt: Prompt) -> Reply:
        request = prompt.messages[0]["content"]
        begun[request] += len(prompt.messages) == 1
        if any(message["role"] == "assistant" for message in prompt.messages):
            return Reply("Done.", problem=NO_CALL)
        forgets = request == "note" and begun[request] > 1
        return Reply("No.", problem=NO_CALL) if forgets else Reply("calls", (right[request],))

    out, policy = tmp_path / "live.json", ScriptedPolicy("policy:script", answer)
    folder = dataset(tmp_path, rows)
    result = evaluate_live("script", folder, servers, out, policy=policy, trials=3)
    assert result["trials"] == 3
    assert result["n_tasks"] == 2
    expected = {"pass^1": 1 / 3, "pass@1": 1 / 3, "pass^2": 0, "pass@2": 2 / 3, "pass^3": 0, "pass@3": 1}
    for name, share in expected.items():
        rate = result["metrics"][name]
        assert rate["value"] == pytest.approx((1 + share) / 2)
        assert rate["low"] <= rate["value"] <= rate["high"]
    lines = [json.loads(line) for line in (tmp_path / "live" / "rollouts.jsonl").read_text().splitlines()]
    assert {(line["id"], line["trial"]) for line in lines} == {(id_, n) for id_ in right for n in range(3)}
    asked = begun.total()
    again = evaluate_live("script", folder, servers, out, policy=policy, trials=3)
    assert again["metrics"] == result["metrics"]
    assert begun.total() == asked


def test_a_temperature_is_for_served_models(tmp_path: Path, servers: Path) -> None:
    with pytest.raises(UserError, match="--temperature: policy:no_op answers greedily; serve the model"):
        evaluate_live("policy:no_op", dataset(tmp_path, ROWS), servers, tmp_path / "out.json", temperature=0.7)

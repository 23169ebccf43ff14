"""Other people's datasets, read: small files in their formats, and their real samples where they lie beside us."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eval.benchmarks.load import examples
from eval.replies.calls import Call
from eval.scores.quality import counts_of
from synthesis.errors import UserError

BENCHMARKS = os.environ.get("RISE_BENCHMARKS", "")
TOOL = {"name": "find_for_zoo", "description": "", "parameters": {"type": "object", "properties": {"kind": {}}}}


def write(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_toolbench_answers_are_read_without_finish(tmp_path: Path) -> None:
    path = [
        {"role": "user", "content": "Find owls"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "find_for_zoo", "arguments": '{"kind": "owl"}'},
        },
        {"role": "function", "name": "find_for_zoo", "content": "two owls"},
        {"role": "assistant", "content": None, "function_call": {"name": "find_for_zoo", "arguments": "{kind"}},
        {"role": "function", "name": "find_for_zoo", "content": "bad input"},
        {"role": "assistant", "content": None, "function_call": {"name": "Finish", "arguments": "{}"}},
    ]
    found = {"query": "Find owls", "function": [TOOL, {"name": "Finish"}], "train_messages": [[], path]}
    final = json.dumps({"return_type": "give_answer", "final_answer": "Two."})
    write(tmp_path, "data_example/answer/G1_answer/7.json", {"answer_generation": {**found, "final_answer": final}})
    write(tmp_path, "data_example/answer/G1_answer/8.json", {"answer_generation": {**found, "train_messages": []}})
    first, empty = examples(f"toolbench:{tmp_path}")
    assert (first.request, first.response, empty.calls) == ("Find owls", "Two.", [])
    assert list(first.calls) == [Call("find_for_zoo", {"kind": "owl"}), Call("find_for_zoo", {"": "{kind"})]
    assert list(first.results) == ["two owls", "bad input"]
    assert [tool["function"]["name"] for tool in first.tools] == ["find_for_zoo"]
    assert counts_of(first)["name_validity"] == (1, 2)


def test_toolevals_trees_are_followed_in_both_spellings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tool(message: Any, *after: Any) -> dict[str, Any]:
        return {"role": "tool", "message": message, "next": list(after)}

    told = {"name": "find_for_zoo", "arguments": '{"kind": "owl"}', "response": "two owls"}
    end = tool(str({"name": "Finish", "arguments": "{}", "response": ""}))
    steps = {"role": "user", "message": "Find owls", "next": [tool(str(told), tool(told, end))]}
    answer = {"final_answer": "", "answer_details": [steps]}
    entry = {"query": "Find owls", "available_tools": [TOOL], "answer": answer}
    cut = {**entry, "answer": {**answer, "answer_details": [tool(str(told)[:50], end)]}}
    write(tmp_path, "toolbench/tooleval/results/x/G1.json", {"7": entry, "8": cut})
    (found,) = examples(f"toolbench:{tmp_path}")
    assert "1 paths left out" in capsys.readouterr().err
    assert list(found.calls) == [Call("find_for_zoo", {"kind": "owl"})] * 2
    assert (list(found.results), found.response) == (["'two owls'}", "two owls"], "")
    assert counts_of(found)["call_conciseness"] == (1, 2)


def test_toolalpacas_parameters_are_read_out_of_their_text(tmp_path: Path) -> None:
    lines = {"color": "Required. string. One of: [wild, white]. It.", "page": "integer. It."}
    text = f"Search.\nParameters: {json.dumps(lines)}\nOutput: x"
    api = {
        "Name": "Zoo",
        "Function_Description": {"search": text, "components": ""},
        "Instructions": ["White ones, please", "And those on page 2"],
        "Golden_Answers": [
            [
                {"Action": "getDetails", "Action_Input": "{}"},
                {"Action": "search", "Action_Input": '{"color": "white", "page": "1"}'},
            ],
            [{"Action": "search", "Action_Input": '{"color": ${color from getDetails}}'}],
        ],
    }
    write(tmp_path, "data/eval_simulated.json", [api])
    first, second = examples(f"toolalpaca:{tmp_path}")
    (tool,) = first.tools
    parameters = tool["function"]["parameters"]
    assert parameters["required"] == ["color"]
    assert parameters["properties"]["color"]["enum"] == ["wild", "white"]
    assert counts_of(first)["value_validity"] == (1, 2)
    assert list(second.calls) == [Call("search", {})]


def test_stes_two_ways_of_describing_are_read(tmp_path: Path) -> None:
    prose = 'API_name: a\nYour input should be a json (args json schema): {{"date" : string, "days" : integer, }} The'
    described = {"required_parameters": [{"name": "make", "type": "STRING"}], "optional_parameters": [{"name": "n"}]}
    document = {
        "add": [{"query": "90 days from 2022-10-14?", "api_descriptions": prose, "action": "add"}],
        "cars": [{"query": "Fords?", "api_descriptions": f"API: {json.dumps(described)}", "action": "cars"}],
    }
    document["add"][0]["action_input"] = '{"date": "2022-10-14", "days": 90}'
    document["cars"][0]["action_input"] = "{make"
    write(tmp_path, "tool_test.json", document)
    add, cars = examples(f"ste:{tmp_path}")
    assert {name: schema["type"] for name, schema in add.tools[0]["function"]["parameters"]["properties"].items()} == {
        "date": "string",
        "days": "integer",
    }
    assert cars.tools[0]["function"]["parameters"]["required"] == ["make"]
    assert (counts_of(add)["value_consistency"], counts_of(cars)["name_validity"]) == ((2, 2), (0, 1))


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected STE's tool_test\.json, found none there"):
        examples(f"ste:{tmp_path}")
    with pytest.raises(UserError, match="no dataset there; expected the folder `dataset`"):
        examples(str(tmp_path))
    with pytest.raises(UserError, match="or one of toolbench:FOLDER, toolalpaca:FOLDER, livemcpbench:FOLDER"):
        examples("gta:/nowhere")
    (tmp_path / "tool_test.json").write_text("{")
    with pytest.raises(UserError, match=r"tool_test\.json: expected JSON"):
        examples(f"ste:{tmp_path}")


@pytest.mark.skipif(not BENCHMARKS, reason="set RISE_BENCHMARKS to a folder of real benchmarks")
@pytest.mark.parametrize(("name", "count"), [("toolbench", 5), ("toolalpaca", 101), ("ste", 150)])
def test_the_real_samples_are_read_whole(name: str, count: int) -> None:
    found = examples(f"{name}:{BENCHMARKS}/{name}")
    assert len(found) == count
    assert all(example.request and example.tools for example in found)
    assert sum(len(example.calls) for example in found) >= 0.9 * count


def test_a_datasets_own_rows_are_examples(tiny_dataset: Path) -> None:
    found = examples(str(tiny_dataset))
    assert len(found) == 24
    assert examples(str(tiny_dataset), limit=5) == examples(str(tiny_dataset), limit=5)
    assert all(len(example.results) == len(example.calls) for example in found)

"""Scoring a model on a benchmark: the three readers on small files, the rules' corners, and the result file."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.benchmarks import acebench, bfcl, ste
from eval.benchmarks.bench import bench
from eval.benchmarks.cases import Case, matched, schema_of
from eval.policies.scripted import ScriptedPolicy
from eval.replies.calls import NO_CALL, Call, Reply
from synthesis.errors import UserError

BOOK = {
    "name": "hotel.book",
    "description": "Books.",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "nights": {"type": "integer"},
            "price": {"type": "float"},
            "floor": {"type": "integer"},
            "days": {"type": "array", "items": {"type": "string"}},
            "guest": {"type": "dict", "properties": {"name": {"type": "string"}}},
        },
        "required": ["city"],
    },
}
GOLD = {
    "city": ["New York", "NYC"],
    "nights": [2, ""],
    "price": [90.0, ""],
    "floor": ["top", ""],
    "days": [["Mon", "Tue"], ""],
    "guest": [{"name": ["Ann"], "age": [3, ""]}, ""],
}


def put(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def said(*calls: Call) -> Reply:
    return Reply("", calls, "" if calls else NO_CALL)


@pytest.fixture
def bfcl_data(tmp_path: Path) -> Path:
    def row(id_: str) -> dict[str, Any]:
        question = [[{"role": "user", "content": f"A room in New York, {id_}"}]]
        return {"id": id_, "question": question, "function": [BOOK]}

    put(tmp_path / "BFCL_v4_simple_python.json", row("simple_python_0"))
    put(
        tmp_path / "possible_answer/BFCL_v4_simple_python.json",
        {"id": "simple_python_0", "ground_truth": [{"hotel.book": GOLD}]},
    )
    put(tmp_path / "BFCL_v4_irrelevance.json", row("irrelevance_0"), row("irrelevance_1"))
    put(tmp_path / "BFCL_v4_simple_java.json", row("simple_java_0"))
    put(tmp_path / "unused_datasets/BFCL_v4_old.json", {"id": "old"})
    (tmp_path / "BFCL_v4_format_sensitivity.json").write_text("{\n}")
    return tmp_path


def booking(**arguments: Any) -> Reply:
    return said(Call("hotel_book", arguments))


@pytest.mark.parametrize(
    ("reply", "own", "exact"),
    [
        (booking(city="New York"), True, True),
        (booking(city="NYC", nights=2, price=90, days=["Mon", "Tue"], guest={"name": "Ann"}), True, True),
        (booking(city="new-york"), True, False),
        (booking(city="New York", days=["mon.", "Tue"]), True, False),
        (booking(city="New York", guest={"name": "ann", "age": 3}), True, False),
        (booking(city="New York", nights=2.0), False, True),
        (booking(city="New York", nights="2"), False, False),
        (booking(city="New York", days=["Tue", "Mon"]), False, False),
        (booking(city="New York", guest={"age": 3}), False, False),
        (booking(city="New York", guest={"name": "Ann", "x": 1}), False, False),
        (booking(city="New York", floor="top"), True, True),
        (booking(city="New York", floor="first"), False, False),
        (booking(city="New York", floor=1), False, False),
        (booking(city="New York", view="sea"), False, False),
        (booking(nights=2), False, False),
        (said(Call("book", {"city": "NYC"})), False, False),
        (said(Call("hotel_book", {"city": "NYC"}), Call("hotel_book", {"city": "NYC"})), False, False),
        (said(), False, False),
    ],
)
def test_a_bfcl_call_is_held_to_its_accepted_values(bfcl_data: Path, reply: Reply, own: bool, exact: bool) -> None:
    case = next(case for case in bfcl.load(bfcl_data).cases if case.category == "simple_python")
    assert bfcl.score(case, reply) == (own, exact)


def test_bfcl_asks_with_names_that_endpoints_take_and_json_schema(bfcl_data: Path) -> None:
    loaded = bfcl.load(bfcl_data)
    asked = bfcl.prompt(loaded.cases[-1])
    function = asked.tools[0]["function"]
    assert function["name"] == "hotel_book"
    assert function["parameters"]["type"] == function["parameters"]["properties"]["guest"]["type"] == "object"
    assert function["parameters"]["properties"]["price"]["type"] == "number"
    assert loaded.missing == [{"id": "simple_java", "n": 1, "reason": "values are source code of Java"}]
    assert bfcl.score(loaded.cases[0], said()) == (True, True)
    assert bfcl.score(loaded.cases[0], booking(city="NYC")) == (False, False)


def test_each_gold_call_wants_a_call_of_its_own() -> None:
    def same(wanted: str, call: Call) -> bool:
        return wanted == call.name

    a, b = Call("a", {}), Call("b", {})
    assert matched(["a", "b"], [b, a], same)
    assert not matched(["a", "a"], [a, b], same)
    assert not matched(["a"], [a, a], same)
    assert matched([], [], same)


def test_types_and_properties_of_that_name_are_told_apart() -> None:
    described = {"type": "dict", "properties": {"type": {"type": "any"}, "tuple": {"type": ["string", "null"]}}}
    assert schema_of(described) == {
        "type": "object",
        "properties": {"type": {"type": "string"}, "tuple": {"type": ["string", "null"]}},
    }


def ace(tmp_path: Path, category: str, gold: Any, question: str = "user: Two nights\n", **more: Any) -> Case:
    room = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "nights": {"type": "number"}, "quiet": {"type": "boolean"}},
        "required": ["city"],
    }
    row = {"id": f"{category}_0_1", "question": question, "function": [{"name": "book", "parameters": room}], **more}
    put(tmp_path / "data_en" / f"data_{category}.json", row)
    put(tmp_path / "data_en/possible_answer" / f"data_{category}.json", {"id": row["id"], "ground_truth": gold})
    (case,) = acebench.load(tmp_path).cases
    return case


def test_acebench_is_lax_where_ours_is_not(tmp_path: Path) -> None:
    case = ace(tmp_path, "normal_similar_api", {"book": {"city": "Bern", "nights": 2, "quiet": True}})

    def scores(**arguments: Any) -> tuple[bool | None, bool]:
        return acebench.score(case, said(Call("book", arguments)))

    assert scores(city="Bern", nights=2, quiet=True) == (True, True)
    assert scores(city="bern, please", nights=7, quiet=False) == (True, False)
    assert scores(city="Bern") == (True, False)
    assert scores(nights=2) == (False, False)
    assert scores(city="Bern", nights="2") == (False, False)
    assert scores(city="Bern", floor=1) == (False, False)
    assert acebench.score(case, said(*[Call("book", {"city": "Bern"})] * 2)) == (False, False)


def test_acebenchs_dialogue_is_told_in_turns_and_its_turns_are_one_cluster(tmp_path: Path) -> None:
    question = "user: A room\nsystem: Where?\nsystem: [ask()]\nuser: In Bern\n"
    case = ace(
        tmp_path, "normal_multi_turn_x", {"book_1": {"city": "Bern"}, "book_2": {"city": "Rom"}}, question, time="Noon."
    )
    assert [message["role"] for message in case.messages] == ["system", "user", "assistant", "user"]
    assert case.messages[0]["content"].endswith("Noon.")
    assert case.messages[2]["content"] == "Where?\n[ask()]"
    assert case.cluster == "en_normal_multi_turn_x/normal_multi_turn_x_0"
    assert case.right.calls == (Call("book", {"city": "Bern"}), Call("book", {"city": "Rom"}))
    assert acebench.score(case, said(*case.right.calls[::-1])) == (True, True)


@pytest.mark.parametrize("category", ["special_incomplete", "special_error_param", "special_irrelevant"])
def test_acebenchs_special_requests_want_its_words(tmp_path: Path, category: str) -> None:
    case = ace(tmp_path, category, "Due to ..." if "irrelevant" in category else {"book": ["city"]})
    assert acebench.score(case, case.right) == (True, True)
    assert acebench.score(case, Reply("Sorry, no.", problem=NO_CALL)) == (False, False)
    assert acebench.score(case, Reply(case.right.text, (Call("book", {}),))) == (True, False)


def test_ste_reads_its_own_form_and_takes_texts_for_equal(tmp_path: Path) -> None:
    entry = {"query": "90 days on?", "api_descriptions": "", "action": "add_date", "action_input": '{"days": 90}'}
    other = {**entry, "action": "search", "action_input": '{"q": "x"}'}
    (tmp_path / "tool_test.json").write_text(json.dumps({"add_date": [entry], "search": [other]}))
    loaded = ste.load(tmp_path)
    add, search = loaded.cases
    for written, right in [
        ('Thought: so.\nAction: add_date\nAction Input: {"days": "90 "}\n', True),
        ('Action: <tool_add_date> Action Input: {"days": 90, "x": 1} Final Answer: {1}', True),
        ('Action: add_date\nAction Input: {"days": 91}', False),
        ('Action: add_date Action Input: {"days": 90} Action Input: {}', False),
        ("Action: add_date Action Input: none", False),
        ("Ninety days on.", False),
    ]:
        assert ste.score(add, Reply(written, problem=NO_CALL)).own is right
    assert ste.score(add, said(Call("add_date", {"days": 90}))) == (True, True)
    assert ste.score(add, said(Call("add_date", {"days": "90"}))) == (True, False)
    assert ste.score(search, said(Call("search", {"q": "x"}))) == (None, True)
    assert loaded.missing == [{"id": "by_judge.own", "n": 1, "reason": "STE asks ChatGPT about their arguments"}]


def test_a_result_holds_both_columns_the_idle_baseline_and_what_is_missing(bfcl_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    gold = bench("bfcl", bfcl_data, "policy:gold", out)
    metrics = json.loads(out.read_text())["metrics"]
    assert {name: rate["value"] for name, rate in metrics.items() if name.startswith("simple")} == {
        "simple_python.own": 1.0,
        "simple_python.exact": 1.0,
    }
    assert metrics["accuracy.own"]["n"] == 3
    assert gold["baselines"]["policy:no_op"] == {
        "accuracy.own": 2 / 3,
        "accuracy.exact": 2 / 3,
        "irrelevance.own": 1.0,
        "irrelevance.exact": 1.0,
        "simple_python.own": 0.0,
        "simple_python.exact": 0.0,
    }
    assert [part["id"] for part in gold["missing"]] == ["simple_java"]
    assert gold["engine"] == {"kind": "scripted"}
    assert not out.with_name("out.json.replies.jsonl").exists()


def test_a_stopped_benchmark_asks_only_what_is_left(bfcl_data: Path, tmp_path: Path) -> None:
    asked, out = [], tmp_path / "out.json"

    def answer(prompt: Any) -> Reply:
        asked.append(prompt)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return said()

    policy = ScriptedPolicy("m", answer)
    with pytest.raises(KeyboardInterrupt):
        bench("bfcl", bfcl_data, "m", out, policy=policy)
    assert bench("bfcl", bfcl_data, "m", out, policy=policy)["metrics"]["accuracy.own"]["n"] == 3
    assert len(asked) == 4


def test_a_sample_takes_so_many_of_each_category(bfcl_data: Path) -> None:
    result = bench("bfcl", bfcl_data, "policy:no_op", limit=1)
    assert [case["category"] for case in result["cases"]] == ["irrelevance", "simple_python"]


def test_what_cannot_be_scored_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gta: expected one of bfcl, acebench, ste"):
        bench("gta", tmp_path, "policy:no_op")
    with pytest.raises(UserError, match=r"expected ACEBench's data_\*\.json, found none there"):
        bench("acebench", tmp_path, "policy:no_op")
    put(tmp_path / "BFCL_v4_memory.json", {"id": "memory_0"})
    with pytest.raises(UserError, match="none of the cases there can be scored"):
        bench("bfcl", tmp_path, "policy:no_op")
    put(tmp_path / "BFCL_v4_multiple.json", {"id": "multiple_0"})
    with pytest.raises(UserError, match=r"expected the answers of BFCL_v4_multiple\.json"):
        bench("bfcl", tmp_path, "policy:no_op")
    (tmp_path / "BFCL_v4_multiple.json").write_text('{"id": 1}\n{"id":')
    with pytest.raises(UserError, match=r"BFCL_v4_multiple\.json, line 2: expected JSON"):
        bench("bfcl", tmp_path, "policy:no_op")

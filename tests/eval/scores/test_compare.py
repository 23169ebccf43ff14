"""Arms against arms, on made-up result files."""

from typing import Any

import numpy as np
import pytest

from eval.scores.compare import compare
from eval.scores.metrics import Counts
from eval.scores.stats import sign_flip, wilson
from synthesis.errors import UserError


def result(tasks: list[int], icps: list[int] | None = None, prefix: str = "t") -> dict[str, Any]:
    """A result file: `tasks` right or wrong; of two ICPs a task, `icps` right."""
    icps = icps or [2 * t for t in tasks]
    common = {
        "calls_valid": 1,
        "calls_predicted": 1,
        "tools_correct": 1,
        "tools_gold": 1,
        "icp_aligned": 2,
        "icp_gold": 2,
        "closings": 1,
        "stopped": 1,
    }
    rows = [
        {
            "id": f"{prefix}{i}",
            "counts": {**Counts().as_dict(), **common, "task": t, "intent": t, "match": t, "icp_equal": e},
        }
        for i, (t, e) in enumerate(zip(tasks, icps, strict=True))
    ]
    return {"tasks": rows}


def verdicts(tests: list[dict[str, Any]]) -> dict[str, str]:
    return {test["metric"]: test["verdict"] for test in tests}


def test_a_clear_gain_is_found_and_what_is_equal_is_not() -> None:
    raw, sft = result([0] * 90 + [1] * 10), result([1] * 80 + [0] * 20)
    tests = compare({"raw": [raw], "sft": [sft]})
    assert [(t["a"], t["b"]) for t in tests] == [("sft", "raw")] * 9
    found = verdicts(tests)
    assert found["acc_task"] == found["acc_intent"] == found["acc_icp"] == found["acc_icp_all"] == "better"
    assert found["acc_call"] == found["tool_recall"] == "no difference"
    task = next(t for t in tests if t["metric"] == "acc_task")
    assert task["difference"] == pytest.approx(0.7)
    assert task["p"] == pytest.approx(sign_flip([1] * 80 + [-1] * 10))
    assert (task["n"], task["low"] < 0.7 < task["high"]) == (100, True)
    call = next(t for t in tests if t["metric"] == "acc_call")
    assert (call["difference"], call["p"]) == (0.0, 1.0)
    assert call["low"] < 0 < call["high"]


def test_turning_a_pair_round_turns_the_verdict() -> None:
    results = {"a": [result([0] * 60 + [1] * 40)], "b": [result([1] * 90 + [0] * 10)]}
    forth, back = compare(results, [("b", "a")]), compare(results, [("a", "b")])
    for one, other in zip(forth, back, strict=True):
        assert one["difference"] == pytest.approx(-other["difference"])
        assert {one["verdict"], other["verdict"]} in ({"better", "worse"}, {"no difference"})
        assert one["p"] == pytest.approx(other["p"], abs=0.02)


def test_holm_spans_the_whole_table() -> None:
    rng = np.random.default_rng(5)
    a, b = (list(map(int, rng.random(60) < rate)) for rate in (0.4, 0.75))
    results = {"a": [result(a)], "b": [result(b)], "c": [result(a)]}
    alone, among = compare(results, [("b", "a")]), compare(results)
    assert len(among) == 27
    assert all(t["p_holm"] >= t["p"] for t in among)
    one = next(t for t in alone if t["metric"] == "acc_task")
    same = next(t for t in among if (t["metric"], t["a"], t["b"]) == ("acc_task", "b", "a"))
    assert (one["p"], one["p_holm"] < same["p_holm"]) == (same["p"], True)


def test_the_pairing_finds_what_separate_intervals_cannot() -> None:
    base = [1] * 100 + [0] * 100
    better = [1] * 100 + [1] * 14 + [0] * 86
    tests = compare({"a": [result(base)], "b": [result(better)]}, [("b", "a")])
    assert wilson(114, 200)[0] < wilson(100, 200)[1], "the two intervals overlap"
    assert verdicts(tests)["acc_task"] == "better"


def test_requests_of_one_trajectory_are_one_piece_of_evidence() -> None:
    base, better = [0] * 60 + [1] * 40, [1] * 12 + [0] * 48 + [1] * 40
    alone = compare({"a": [result(base)], "b": [result(better)]}, [("b", "a")])
    files = [result(list(np.repeat(arm, 4))) for arm in (base, better)]
    for file in files:
        for number, task in enumerate(file["tasks"]):
            task["trajectory_id"] = f"t{number // 4}"
    shared = compare({"a": [files[0]], "b": [files[1]]}, [("b", "a")])
    for one, four in zip(alone, shared, strict=True):
        assert four["difference"] == pytest.approx(one["difference"])
        assert four["p"] == pytest.approx(one["p"], abs=0.003), "four requests of each say no more than one"
        assert four["high"] - four["low"] == pytest.approx(one["high"] - one["low"], rel=0.15)


def test_seeds_are_pooled_by_task_and_raw_may_have_run_once() -> None:
    raw = [result([0] * 50 + [1] * 50)]
    sft = [result([1] * 80 + [0] * 20), result([1] * 70 + [0] * 30), result([1] * 75 + [0] * 25)]
    task = compare({"raw": raw, "sft": sft})[0]
    assert task["difference"] == pytest.approx(0.25)
    assert task["n"] == 100


def test_copies_of_one_seed_are_no_further_evidence() -> None:
    a, b = result([0] * 50 + [1] * 50), result([1] * 8 + [0] * 42 + [1] * 50)
    once, copied = (compare({"a": [a] * n, "b": [b] * n})[0] for n in (1, 5))
    assert copied["p"] == pytest.approx(once["p"], rel=0.4), "McNemar over copies would give p = 1e-12"


def test_seeds_that_disagree_widen_the_interval_and_forbid_a_verdict() -> None:
    base = [result([0] * 60 + [1] * 40)] * 3
    steady = [result([1] * 20 + [0] * 40 + [1] * 40)] * 3
    lucky = [result([1] * 60 + [1] * 40), *[result([0] * 60 + [1] * 40)] * 2]
    found = [compare({"a": base, "b": arm}, [("b", "a")])[0] for arm in (steady, lucky)]
    assert [t["difference"] for t in found] == pytest.approx([0.2, 0.2])
    assert found[0]["high"] - found[0]["low"] < 0.5 * (found[1]["high"] - found[1]["low"])
    assert found[1]["low"] <= 0 < found[1]["high"]
    assert [t["verdict"] for t in found] == ["better", "no difference"]
    assert found[1]["p_holm"] < 0.05, "these very trainings differ; others need not"


def test_arms_are_paired_seed_by_seed() -> None:
    rng = np.random.default_rng(3)
    draws = [[int(x) for x in rng.random(80) < rate] for rate in (0.2, 0.5, 0.8)]
    parents = [result(d) for d in draws]
    children = [result([1 if i < 12 else x for i, x in enumerate(d)]) for d in draws]
    paired = compare({"a": parents, "b": children}, [("b", "a")])[0]
    shuffled = compare({"a": parents, "b": children[1:] + children[:1]}, [("b", "a")])[0]
    assert paired["low"] > 0
    assert shuffled["high"] - shuffled["low"] > 2 * (paired["high"] - paired["low"])


def test_arms_with_different_numbers_of_seeds_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="two arms have 3 and 2 seeds"):
        compare({"a": [result([1, 0])] * 2, "b": [result([1, 0])] * 3}, [("b", "a")])


def test_no_effect_is_rarely_called_one() -> None:
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(20):
        draws = rng.random((2, 50)) < 0.5
        a, b = (
            result([int(x) for x in arm], [int(x) + int(y) for x, y in zip(arm, rng.random(50) < 0.5, strict=True)])
            for arm in draws
        )
        alarms += any(v != "no difference" for v in verdicts(compare({"a": [a], "b": [b]})).values())
    assert alarms <= 4


def test_the_randomisation_test_holds_its_level_where_few_tasks_differ() -> None:
    a, b = result([1] * 40, [1] * 40), result([1] * 40, [2] * 6 + [1] * 34)
    icp = next(t for t in compare({"a": [a], "b": [b]}) if t["metric"] == "acc_icp")
    assert icp["p"] == pytest.approx(2 / 2**6, rel=0.2)
    assert icp["difference"] == pytest.approx(6 / 80)
    assert 0 < icp["low"] < icp["difference"] < icp["high"]


def test_different_tasks_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="different tasks"):
        compare({"a": [result([1, 0])], "b": [result([1, 0], prefix="u")]})

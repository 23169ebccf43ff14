"""`rise mine`: the likeliest negatives and the model's own wrong replies; resumable, and a dataset like any other."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from handmade import write_dataset

from eval.policies.base import Prompt
from eval.policies.local import LocalPolicy
from eval.replies.calls import Call, Reply
from rise_train.cli import main
from rise_train.mining import hard_negatives as module
from rise_train.mining.hard_negatives import Options, mine
from rise_train.mining.model_scores import OWN, Miner, wrong
from rise_train.models.fingerprint import ProbeRow, log_probs
from rise_train.rows.check import check_preference
from rise_train.rows.recipe_rows import load_rows
from rise_train.runs.recipe import PairArguments
from synthesis.errors import UserError


@pytest.fixture(scope="module")
def pool(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-made dataset, with a second and a third negative in every group: other values of the same parameter."""
    folder = write_dataset(tmp_path_factory.mktemp("pool"), *_rows(tiny_dataset))
    splits = load_from_disk(str(folder / "preference"))
    widened = {name: rows.map(_widened, load_from_cache_file=False) for name, rows in splits.items()}
    from datasets import DatasetDict

    DatasetDict(widened).save_to_disk(str(folder / "wide"))
    (folder / "preference").rename(folder / "narrow")
    (folder / "wide").rename(folder / "preference")
    (folder / "README.md").write_text("# A card\n")
    return folder


def _rows(dataset: Path) -> list[list[dict[str, Any]]]:
    splits = load_from_disk(str(dataset / "sft"))
    return [list(splits[name]) for name in ("train", "test")]


def _widened(group: dict[str, Any]) -> dict[str, Any]:
    facts = group["meta"]["negatives"]
    rejected, negatives = list(group["rejected"]), list(facts)
    for word in ("elsewhere", "somewhere quite different"):
        message = json.loads(json.dumps(rejected[0]))
        call = message[0]["tool_calls"][0]["function"]
        call["arguments"] = {key: word if isinstance(v, str) else v for key, v in call["arguments"].items()}
        rejected.append(message)
        negatives.append({**facts[0], "id": f"{facts[0]['id']}-{word}", "executed": "covert"})
    return {"rejected": rejected, "meta": {**group["meta"], "negatives": negatives}}


def groups(dataset: Path, split: str = "train") -> dict[str, dict[str, Any]]:
    return {row["meta"]["id"]: row for row in load_from_disk(str(dataset / "preference"))[split]}


def test_the_likeliest_negatives_are_kept_likeliest_first(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    counts = mine(str(tiny_model), pool, tmp_path / "mined", Options(keep=2))
    before, after = groups(pool), groups(tmp_path / "mined")
    miner = Miner(str(tiny_model), 8, 8)
    preferred = 0
    assert set(before) == set(after)
    for name, row in after.items():
        whole = check_preference(miner.tokenizer, [before[name]], None).groups[0]
        probes = [
            ProbeRow("", [*whole.prompt_ids, *a], [-100] * len(whole.prompt_ids) + a)
            for a in [whole.chosen_ids, *whole.rejected_ids]
        ]
        chosen, *rejected = map(sum, log_probs(miner.model, probes))
        preferred += sum(p > chosen for p in rejected)
        order = sorted(range(len(rejected)), key=lambda k: -rejected[k])[:2]
        assert row["rejected"] == [before[name]["rejected"][k] for k in order]
        facts = row["meta"]["negatives"]
        assert [f["id"] for f in facts] == [before[name]["meta"]["negatives"][k]["id"] for k in order]
        assert [f["log_prob"] for f in facts] == pytest.approx([rejected[k] for k in order], rel=1e-5)
        assert row["meta"]["chosen_log_prob"] == pytest.approx(chosen, rel=1e-5)
    sizes = [len(row["rejected"]) for row in before.values()]
    kept = sum(min(2, size) for size in sizes)
    assert (counts["groups"], counts["pool"], counts["negatives"]) == (len(after), sum(sizes), kept)
    assert counts["preferred"] == preferred > 0
    assert (counts["own_replies"], counts["unusable"]) == (0, 0)


def test_what_is_not_mined_is_taken_over_and_the_card_says_what_was(
    tiny_model: Path, pool: Path, tmp_path: Path
) -> None:
    mine(str(tiny_model), pool, tmp_path / "mined", Options(keep=1, limit=5))
    assert groups(tmp_path / "mined", "test") == groups(pool, "test")
    assert _rows(tmp_path / "mined") == _rows(pool)
    assert len(groups(tmp_path / "mined")) == 5
    card = (tmp_path / "mined" / "README.md").read_text()
    assert card.startswith("# A card")
    assert f"the 1 of each group that the model `{tiny_model.name}` finds likeliest: 5 in 5 groups" in card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mined"], "no journal is left behind"


def test_a_killed_run_goes_on_and_ends_the_same(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER", 7)
    judged: list[int] = []
    judge = Miner.judge

    def dies(self: Miner, rows: Any, *options: Any) -> Any:
        if len(judged) == 2:
            raise KeyboardInterrupt
        judged.append(len(rows))
        return judge(self, rows, *options)

    monkeypatch.setattr(Miner, "judge", dies)
    with pytest.raises(KeyboardInterrupt):
        mine(str(tiny_model), pool, tmp_path / "mined", Options(keep=2))
    assert not (tmp_path / "mined").exists()
    journal = next((tmp_path / "mined.partial").glob("*.jsonl"))
    journal.write_text(journal.read_text()[:-30])  # the record in hand was half written
    seen: list[int] = []
    monkeypatch.setattr(Miner, "judge", lambda self, rows, *o: seen.append(len(rows)) or judge(self, rows, *o))
    mine(str(tiny_model), pool, tmp_path / "mined", Options(keep=2))
    total = len(groups(pool))
    assert judged == [7, 7]
    assert sum(seen) == total - 7, "the block with the half record is judged again, the one before it is not"
    mine(str(tiny_model), pool, tmp_path / "again", Options(keep=2))
    assert groups(tmp_path / "mined") == groups(tmp_path / "again")


def test_what_is_done_is_not_done_again_and_nothing_is_overwritten(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mine(str(tiny_model), pool, tmp_path / "mined", Options(limit=3))
    monkeypatch.setattr(Miner, "judge", None)
    assert mine(str(tiny_model), pool, tmp_path / "mined", Options(limit=3)) == first
    with pytest.raises(UserError, match="holds something else already"):
        mine(str(tiny_model), pool, tmp_path / "mined", Options(limit=3, keep=1))
    with pytest.raises(UserError, match="difficulty: train has no request that is hard"):
        mine(str(tiny_model), pool, tmp_path / "other", Options(difficulty="hard"))
    with pytest.raises(UserError, match="no split 'dev'; there are test, train"):
        mine(str(tiny_model), pool, tmp_path / "other", Options(split="dev"))


def test_models_that_cannot_be_packed_are_scored_one_by_one(tiny_model: Path, pool: Path) -> None:
    miner = Miner(str(tiny_model), 8, 8)
    assert miner.packs
    encoded = check_preference(miner.tokenizer, list(groups(pool).values())[:3], None).groups
    packed = miner.log_probs(encoded)
    miner.packs = False
    for one, other in zip(packed, miner.log_probs(encoded), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def turned(row: dict[str, Any], **changes: Any) -> Reply:
    """The right calls of a row, with other arguments in the first."""
    function = [call["function"] for call in row["chosen"][0]["tool_calls"]]
    first = Call(function[0]["name"], {**function[0]["arguments"], **changes})
    return Reply("", (first, *(Call(f["name"], f["arguments"]) for f in function[1:])))


def test_a_wrong_reply_is_one_that_can_be_read_and_misses_a_critical_parameter(pool: Path) -> None:
    row = next(r for r in groups(pool).values() if "city" in r["chosen"][0]["tool_calls"][0]["function"]["arguments"])
    found = wrong(row, turned(row, city="Rome"))
    assert found is not None
    assert found.calls[0]["arguments"]["city"] == "Rome"
    assert 0 < found.missed < 1
    assert wrong(row, turned(row)) is None, "right"
    assert wrong(row, turned(row, extra="not critical")) is None
    assert wrong(row, Reply("?", problem="no tool call in the reply")) is None
    assert wrong(row, Reply("", turned(row, city="Rome").calls, truncated=True)) is None
    assert wrong(row, Reply("", (Call("shop__cancel_order", {"order_id": "1"}),))) is not None, "another tool"


def test_own_replies_join_the_pool_and_can_be_trained_on_alone(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, int]] = []

    def reply(self: LocalPolicy, prompts: Sequence[Prompt], *_: Any) -> list[Reply]:
        """First a wrong value, then a value with a control token, then the first again."""
        asked.append((bool(self.model.generation_config.do_sample), len(prompts)))
        assert not self.model.generation_config.top_k, "drawn from all tokens"
        word = ["Rome", "x <|im_end|> y", "Rome"][len(asked) - 1]
        rows = {json.dumps(row["prompt"]): row for row in groups(pool).values()}
        found = [rows[json.dumps(prompt.messages)] for prompt in prompts]
        return [turned(row, **{row["meta"]["critical"][0]["parameter"]: word}) for row in found]

    monkeypatch.setattr(LocalPolicy, "reply", reply)
    counts = mine(str(tiny_model), pool, tmp_path / "mined", Options(keep=9, own_replies=3, limit=6))
    assert asked == [(False, 6), (True, 6), (True, 6)], "greedy first, then drawn"
    assert (counts["own_replies"], counts["unusable"]) == (6, 6)

    rows = load_rows(PairArguments(str(tmp_path / "mined"), negatives=[OWN]), "dpo")
    assert [len(row["rejected"]) for row in rows] == [1] * 6
    assert all("Rome" in json.dumps(row["rejected"]) for row in rows)
    assert all(fact["mutations"] == [] and fact["log_prob"] < 0 for row in rows for fact in row["meta"]["negatives"])


def test_a_recipe_chooses_negatives_and_difficulty(pool: Path) -> None:
    everything = load_rows(PairArguments(str(pool)), "dpo")
    covert = load_rows(PairArguments(str(pool), negatives=["covert"]), "dpo")
    assert [len(row["rejected"]) for row in covert] == [2] * len(everything)
    assert covert[0]["rejected"] == everything[0]["rejected"][-2:]
    with pytest.raises(UserError, match="negatives: none is of distractor; the dataset has co_hyponym, covert"):
        load_rows(PairArguments(str(pool), negatives=["distractor"]), "dpo")
    with pytest.raises(UserError, match="no request that is hard"):
        load_rows(PairArguments(str(pool), difficulty="hard"), "sft")
    assert len(load_rows(PairArguments(str(pool), difficulty="easy"), "sft")) == 18


def test_the_command_says_what_it_did(
    tiny_model: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "mined")
    with pytest.raises(SystemExit) as ended:
        main(["mine", str(tiny_model), str(pool), "-o", out, "--keep", "1", "--limit", "2"])
    assert not ended.value.code
    printed = capsys.readouterr()
    assert "groups 2, pool" in printed.out
    assert f"written to {out}" in printed.out
    assert "mining: 2/2" in printed.err
    with pytest.raises(SystemExit) as refused:
        main(["mine", str(tmp_path / "nothing"), str(pool), "-o", str(tmp_path / "x")])
    assert refused.value.code == 2


def test_parallel_calls_need_a_template_that_shows_them(tiny_model: Path, pool: Path) -> None:
    """Else an answer falls into one call a turn, and scores would go to the wrong negatives."""
    row = next(iter(groups(pool).values()))
    calls = row["chosen"][0]["tool_calls"] * 2
    row = {**row, "chosen": [{**row["chosen"][0], "tool_calls": calls}]}
    miner = Miner(str(tiny_model), 8, 8)
    miner.parallel = False
    with pytest.raises(UserError, match="one call a turn"):
        miner.judge([row], 0, 0)

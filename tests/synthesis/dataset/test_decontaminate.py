"""Planted benchmark text is found in whatever form the file has, and the cleaned copy is free of it."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synthesis.dataset.decontaminate import check, clean, read, runs, strings, words
from synthesis.dataset.reading import Stored
from synthesis.dataset.reading import read as read_dataset
from synthesis.errors import UserError

BENCHMARKS = os.environ.get("RISE_BENCHMARKS", "")


@pytest.fixture(scope="module")
def stored(tiny_dataset: Path) -> Stored:
    return read_dataset(tiny_dataset)


def request(stored: Stored, split: str, number: int) -> str:
    return str(stored.sft[split][number]["messages"][0]["content"])


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.json", lambda text: json.dumps({"data": [{"turns": [[{"role": "user", "content": text}]]}]})),
        ("lines.jsonl", lambda text: '{"query": "one line\u2028of\u0085five words"}\n' + json.dumps([text])),
        ("b.jsonl", lambda text: json.dumps({"query": "something else of five words"}) + "\n\n" + json.dumps([text])),
        ("c.json", lambda text: json.dumps({"question": text}) + "\n" + json.dumps({"question": "no"})),
    ],
)
def test_a_planted_request_is_found_in_any_form(stored: Stored, tmp_path: Path, name: str, form: Any) -> None:
    text = request(stored, "train", 0)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / name).write_text(form("Well then: " + text.upper().replace(",", " -")))
    (tmp_path / "bench" / "notes.txt").write_text(text)
    report = check(stored, [tmp_path / "bench"])
    assert stored.sft["train"][0]["meta"]["id"] in report.ids
    assert report.files == 1
    for match in report.matches:
        assert match.file.name == name
        assert match.shared in " ".join(words(match.request))
        assert match.shared in " ".join(words(text))
        assert len(match.shared.split()) == 8


def test_runs_shorter_than_n_and_other_texts_do_not_match(stored: Stored, tmp_path: Path) -> None:
    found = words(request(stored, "train", 0))
    (tmp_path / "b.json").write_text(json.dumps([" ".join(found[:7]), "a text that has nothing to do with any of it"]))
    assert check(stored, [tmp_path / "b.json"]).matches == []
    assert check(stored, [tmp_path / "b.json"], n=7).ids
    assert check(stored, [tmp_path / "b.json"], n=len(found)).matches == []


def test_a_request_shorter_than_n_is_compared_as_a_whole(stored: Stored, tmp_path: Path) -> None:
    row = stored.sft["train"][0]
    short = {**row, "messages": [{"role": "user", "content": "Is it raining in Oslo?"}, *row["messages"][1:]]}
    tiny = {**row, "messages": [{"role": "user", "content": "Oslo, please."}, *row["messages"][1:]]}
    made = Stored(stored.folder, {"train": [short, tiny]}, {"train": []})
    (tmp_path / "b.json").write_text(json.dumps(["Tell me: is it raining in Oslo, please?"]))
    report = check(made, [tmp_path / "b.json"])
    assert [match.shared for match in report.matches] == ["is it raining in oslo"]
    assert (report.compared, report.too_short) == (1, 1)


def test_the_cleaned_copy_has_no_match_and_all_the_rest(stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("# Card\n")
    stored = replace(stored, folder=tmp_path / "card")
    (tmp_path / "b.json").write_text(json.dumps([request(stored, "train", 0), request(stored, "test", 1)]))
    report = check(stored, [tmp_path / "b.json"])
    assert {match.split for match in report.matches} == {"train", "test"}
    positives, negatives = clean(stored, report, tmp_path / "clean")
    copy = read_dataset(tmp_path / "clean")
    assert check(copy, [tmp_path / "b.json"]).matches == []
    assert positives == len(report.ids) < sum(map(len, stored.sft.values()))
    for split, rows in stored.sft.items():
        assert copy.sft[split] == [row for row in rows if row["meta"]["id"] not in report.ids]
        assert {r["meta"]["sample_id"] for r in copy.preference[split]}.isdisjoint(report.ids)
    before, after = (sum(1 for split in s.preference for _ in s.pairs(split)) for s in (stored, copy))
    assert before - after == negatives > 0
    assert (
        f"{positives} positives and {negatives} negatives were left out" in (tmp_path / "clean/README.md").read_text()
    )


def test_what_cannot_be_read_is_one_sentence(stored: Stored, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{'a': 1}")
    (tmp_path / "empty").mkdir()
    for path, said in (("nowhere", "expected a benchmark"), ("empty", "expected a benchmark"), ("broken.json", "JSON")):
        with pytest.raises(UserError, match=said):
            check(stored, [tmp_path / path])
    with pytest.raises(UserError, match="--ngram: expected 5"):
        check(stored, [tmp_path / "broken.json"], n=2)


def test_small_parts() -> None:
    assert words("It's 3.5 °C -- in ZÜRICH!") == ["it", "s", "3", "5", "c", "in", "zürich"]
    assert list(runs(["a", "b", "c"], 2)) == ["a b", "b c"]
    assert list(strings({"one two three four five": ["x", {"y": "six seven eight nine ten"}], "n": 3})) == [
        "six seven eight nine ten"
    ]


@pytest.mark.skipif(not BENCHMARKS, reason="set RISE_BENCHMARKS to a folder of real benchmarks")
def test_real_benchmarks_can_be_read_and_are_found(stored: Stored, tmp_path: Path) -> None:
    assert check(stored, [Path(BENCHMARKS)]).matches == []
    texts = ((path, text) for path in sorted(Path(BENCHMARKS).rglob("*.jsonl")) for text in strings(read(path)))
    path, planted = next((path, text) for path, text in texts if len(words(text)) > 20)
    row = stored.sft["train"][0]
    poisoned = {**row, "messages": [{"role": "user", "content": f"Please. {planted}"}, *row["messages"][1:]]}
    report = check(Stored(stored.folder, {"train": [poisoned]}, {"train": []}), [Path(BENCHMARKS)])
    assert path in {match.file for match in report.matches}

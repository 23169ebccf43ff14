"""Rows are encoded in one process or several alike, once a machine, and not again while nothing changed."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from handmade import ROOT, build_tokenizer, flags, preference_rows, sft_row, trl_template, write_dataset

from rise_train.rows import encoding
from rise_train.rows.check import check_preference, check_rows, check_sft
from rise_train.rows.encoding import Encoder, collect, encode, jobs_of
from rise_train.rows.masking import use_training_template
from rise_train.runs.recipe import parse
from synthesis.errors import UserError


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    built = build_tokenizer(trl_template("qwen3"))
    use_training_template(built)
    return built


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rise_train"


def checked(stage: str, tokenizer: Any, dataset: Path, **changes: Any) -> Any:
    config = str(ROOT / "recipes" / "tiny" / stage / "config_full.yaml")
    arguments = flags(stage, Path("model"), dataset, Path("out"), **changes)
    data, training, _ = parse(stage, ["--config", config, *arguments])  # type: ignore[arg-type]
    return check_rows(stage, tokenizer, data, training)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_rows_are_encoded_once_and_read_from_disk_afterwards(
    stage: str, tokenizer: Any, tiny_dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checked(stage, tokenizer, tiny_dataset)
    (folder,) = cache.iterdir()
    assert [Path(file["filename"]).parent for file in first.records.cache_files] == [folder]

    def fail(*_: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "__call__", fail)
    again = checked(stage, tokenizer, tiny_dataset)
    assert again.line() == first.line()
    assert list(again.records) == list(first.records)
    assert (again.ids, again.lengths, again.budget) == (first.ids, first.lengths, first.budget)
    shorter = checked(stage, tokenizer, tiny_dataset, max_length=first.longest - 1, on_overlong="drop")
    assert len(shorter.dropped) >= 1
    assert shorter.longest < first.longest


def test_what_changes_the_ids_is_encoded_anew(tokenizer: Any, tiny_dataset: Path, tmp_path: Path, cache: Path) -> None:
    checked("sft", tokenizer, tiny_dataset)
    checked("sft", tokenizer, tiny_dataset, learning_rate=1)
    assert len(list(cache.iterdir())) == 1
    copied = shutil.copytree(tiny_dataset, tmp_path / "copy")
    checked("sft", tokenizer, copied)
    assert len(list(cache.iterdir())) == 1, "the content counts, not the place"
    other = write_dataset(tmp_path / "other", [sft_row(i) for i in range(3)], [sft_row(9)])
    checked("sft", tokenizer, other)
    changed = copy.deepcopy(tokenizer)
    changed.chat_template += "{# another #}"
    checked("sft", changed, tiny_dataset)
    checked("dpo", tokenizer, tiny_dataset)
    checked("dpo", tokenizer, tiny_dataset, seed=1)
    assert len(list(cache.iterdir())) == 5


def test_a_killed_process_leaves_no_half_table(
    tokenizer: Any, tiny_dataset: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "write_json", die)  # after the records, before the counts
        with pytest.raises(Killed):
            checked("sft", tokenizer, tiny_dataset)
    assert [path.suffix for path in cache.iterdir()] == [".part"]
    assert checked("sft", tokenizer, tiny_dataset).rows == 18


def test_a_bad_row_leaves_nothing_behind(tokenizer: Any, tmp_path: Path, cache: Path) -> None:
    bad = {**sft_row(1), "tools": []}
    bad["messages"] = [{**m, "content": "<|im_end|>"} if m["role"] == "user" else m for m in bad["messages"]]
    with pytest.raises(UserError, match="sft row 1 "):
        checked("sft", tokenizer, write_dataset(tmp_path / "bad", [sft_row(0), bad], [sft_row(2)]))
    assert list(cache.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "file"))
        with pytest.raises(UserError, match=r"HF_DATASETS_CACHE: .* cannot be written"):
            checked("sft", tokenizer, tmp_path / "bad")


def test_several_processes_make_the_records_of_one(tokenizer: Any) -> None:
    rows = [sft_row(i) for i in range(70)]  # more than a chunk
    jobs = jobs_of(rows, {})
    one, two = (collect(encode(tokenizer, "sft", jobs, processes)) for processes in (1, 2))
    assert one == two
    assert [record["row"] for record in two.records] == list(range(70))

    broken = {**rows[66], "tools": []}
    broken["messages"] = [{**m, "content": "<|im_end|>"} if m["role"] == "user" else m for m in broken["messages"]]
    sentences = []
    for processes in (1, 2):
        with pytest.raises(UserError) as error:
            collect(encode(tokenizer, "sft", jobs_of([*rows[:66], broken, broken], {}), processes))
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]
    assert sentences[0].startswith("sft row 66 (id ")


def test_the_report_is_the_same_from_disk_and_from_memory(tokenizer: Any, tiny_dataset: Path, cache: Path) -> None:
    from rise_train.rows.recipe_rows import read_split

    rows = read_split(tiny_dataset, "sft", "train")
    memory, disk = check_sft(tokenizer, rows, 2048), checked("sft", tokenizer, tiny_dataset)
    assert list(memory.encoded) == list(disk.encoded)
    assert memory.summary() == disk.summary()
    groups = [group for row in rows for group in preference_rows(row)]
    report = check_preference(tokenizer, groups, 2048)
    assert report.groups[-1] == report.groups[len(report.groups) - 1]
    assert report.groups[1:3] == [report.groups[1], report.groups[2]]
    with pytest.raises(IndexError):
        report.groups[len(report.groups)]


def test_a_split_to_validate_on_is_another_division(
    tokenizer: Any, tiny_dataset: Path, tmp_path: Path, cache: Path
) -> None:
    from datasets import DatasetDict, load_from_disk

    evaluate = {"eval_strategy": "epoch"}
    assert checked("sft", tokenizer, tiny_dataset, **evaluate).rows < 18, "a tenth is held out"
    sides = load_from_disk(str(tiny_dataset / "sft"))
    DatasetDict({**sides, "validation": sides["test"]}).save_to_disk(str(tmp_path / "own" / "sft"))
    assert checked("sft", tokenizer, tmp_path / "own", **evaluate).rows == 18
    assert checked("sft", tokenizer, tiny_dataset, **evaluate).rows < 18


@pytest.mark.parametrize("harm", ["cut", "empty", "no counts"])
def test_a_damaged_table_is_made_anew(harm: str, tokenizer: Any, tiny_dataset: Path, cache: Path) -> None:
    first = list(checked("sft", tokenizer, tiny_dataset).records)
    (folder,) = cache.iterdir()
    data = (folder / "records.arrow").read_bytes()
    if harm == "no counts":
        (folder / "counts.json").unlink()
    else:
        (folder / "records.arrow").write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
    assert list(checked("sft", tokenizer, tiny_dataset).records) == first


def test_a_number_of_processes_that_cannot_be_is_refused(tokenizer: Any, tiny_dataset: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="dataset_num_proc: expected 1 or more, found -1"):
        checked("sft", tokenizer, tiny_dataset, dataset_num_proc=-1)

"""Files that are the same twice, and read back exactly."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from synthesis.dataset import exact_json
from synthesis.dataset.rows import preference_rows, sft_row
from synthesis.dataset.source import Source
from synthesis.dataset.split import split
from synthesis.dataset.writing import write

FACTS = {"isolation": "none", "seed": 0}


def test_written_twice_is_the_same_to_the_byte_and_reads_back_exactly(source: Source, tmp_path: Path) -> None:
    from datasets import load_from_disk

    def hashes(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    counts = write(source, tmp_path / "one", FACTS)
    shuffled = replace(source, samples=list(reversed(source.samples)))
    write(shuffled, tmp_path / "two", FACTS)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert not (tmp_path / "one.partial").exists()

    train, test = split(source)
    read = load_from_disk(str(tmp_path / "one" / "sft"))
    assert read["train"].to_list() == [sft_row(source, sample) for sample in train]
    order = [list(c["function"]["arguments"]) for m in read["test"][0]["messages"] for c in m.get("tool_calls", [])]
    assert order == [
        list(c["function"]["arguments"]) for m in sft_row(source, test[0])["messages"] for c in m.get("tool_calls", [])
    ]
    groups_read = load_from_disk(str(tmp_path / "one" / "preference"))
    expected = [row for sample in test for row in preference_rows(source, sample)]
    assert groups_read["test"].to_list() == expected
    assert str(groups_read["train"].features["rejected"]).startswith("List(List(Json")
    assert counts["positives"] == 120
    groups = [row for sample in source.samples for row in preference_rows(source, sample)]
    assert counts["negatives"] == sum(len(row["rejected"]) for row in groups)
    card = (tmp_path / "one" / "README.md").read_text()
    assert "| conditional |" in card
    assert "- isolation: none" in card


@given(st.integers(-(10**7), 10**7), st.integers(0, 7))
def test_numbers_that_people_write_come_back_exactly(digits: int, places: int) -> None:
    from datasets.utils.json import ujson_loads

    value = digits / 10**places
    text = exact_json.dumps({"x": [value]}, ujson_loads)
    assert ujson_loads(text) == {"x": [value]} == json.loads(text)


def test_text_comes_back_exactly() -> None:
    from datasets.utils.json import ujson_loads

    value = {"b": 'quote " slash / back \\ line \n \u2028 \U0001f600 é', "a": [None, True, 3, 0.3, {}, []], "é": 10**15}
    text = exact_json.dumps(value, ujson_loads)
    assert ujson_loads(text) == value == json.loads(text)
    assert list(ujson_loads(text)) == ["b", "a", "é"]

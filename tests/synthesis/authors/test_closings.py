"""The last message: what was asked for stands in it, whole, from what the tools said, and nothing else."""

import json
import random
import re
from typing import Any

import pytest

from synthesis.authors.offline.closings import LONGEST, closing
from synthesis.records import Step
from synthesis.text.visible import shown


def said(*results: str, reads: list[bool] | None = None, ways: tuple[str, ...] = (), **arguments: Any) -> str:
    steps = [Step(turn=i, tool="s__t", arguments=arguments, result=r, primitive_id="p") for i, r in enumerate(results)]
    asked = [True] * len(steps) if reads is None else reads
    return closing(steps, asked, [ways] * len(steps), random.Random(0))


CONVERTED = (
    '{"original_value":180.0,"original_unit":"inches","converted_value":4.572,"converted_unit":"meters","kind":"x"}'
)
WAYS = ("{original_value} {original_unit} is {converted_value} {converted_unit}", "{expression} is {answer}")


def test_a_sentence_of_the_phrasebook_is_filled_from_result_and_arguments() -> None:
    assert said(CONVERTED, ways=WAYS) == "180 inches is 4.572 meters."
    assert said("23", ways=WAYS, expression="510 // 22") == "510 // 22 is 23."
    nested = '{"source": {"at": "<volatile>T09:45"}, "target": {"at": "<volatile>T02:15"}}'
    assert said(nested, ways=("It is {target_at} there",)) == "It is 02:15 there."


def test_what_stands_behind_the_cut_is_not_guessed_from_what_stands_before_it() -> None:
    """Of a time conversion the source comes first; it is no answer."""
    ways = ("{time} in {source} is {target_at} in {target}",)
    times = {"time": "09:45", "source": "Asia/Tokyo", "target": "Asia/Dubai"}
    text = (
        '{"source": {"zone": "Asia/Tokyo", "at": "09:45:00+09:00"}, "target": {"zone": "Asia/Dubai", "at": "04:45:00"}}'
    )
    assert said(text, ways=ways, **times) == "09:45 in Asia/Tokyo is 04:45:00 in Asia/Dubai."
    assert said(shown(text, 90), ways=ways, **times) == "The result is longer than what can be seen of it."
    assert "Tokyo" in said(shown(text, 90), ways=ways, unit="zone"), "another tool of the same server"


def test_every_asked_result_has_its_part_and_the_others_are_done() -> None:
    both = said(CONVERTED, "23", ways=WAYS, expression="510 // 22")
    assert both == "180 inches is 4.572 meters. 510 // 22 is 23."
    mixed = said(CONVERTED, "Note set on B4.", '{"range":"B4"}', reads=[True, False, False], ways=WAYS)
    assert "4.572 meters" in mixed
    assert "Note set on B4." in mixed
    assert re.match(r"Done|That is done", mixed)


@pytest.mark.parametrize(
    ("result", "holds", "lacks"),
    [
        ('{"index": 0, "text": "Dear Mr Brown,", "is_heading": false}', ["Dear Mr Brown,"], ["heading", "text"]),
        ('{"matches":{"Orders":{"D3":"Monitor","D6":"Monitor"}}}', ["Orders D3", "Orders D6"], ["Monitor"]),
        ("[{'name': 'customers'}, {'name': 'orders'}]", ["customers; orders."], ["name", "{", "'"]),
        ("  dev\n  hotfix\n* main", ["dev; hotfix; * main."], []),
        ("Found 2 files:\n- a.docx (<volatile>)\n- b.docx (<volatile>)", ["Found 2 files: - a.docx; - b.docx."], ["<"]),
        ('{"/data/a.xlsx":<volatile>,"/data/b.xlsx":<volatile>}', ["/data/a.xlsx, /data/b.xlsx."], ["<"]),
        ("[image image/png sha256 929e08d597feae56]", ["Here is the image."], ["sha256"]),
        (
            "3 pages\n[resource file:///a.pdf sha256 929e08d597feae56]\n[resource file:///b.pdf]",
            ["3 pages; [resource file:///b.pdf]."],
            ["sha256"],
        ),
        ("{}", ["Nothing was found."], []),
        ("[]", ["Nothing was found."], []),
    ],
)
def test_an_answer_says_what_was_found(result: str, holds: list[str], lacks: list[str]) -> None:
    text = said(result, query="Monitor")
    assert all(part in text for part in holds)
    assert not any(part in text for part in lacks)


ROWS = json.dumps([{"id": i, "city": f"City number {i}", "opened": f"2020-09-{i + 10}"} for i in range(15)])


@pytest.mark.parametrize("limit", range(60, 260, 13))
@pytest.mark.parametrize(
    "text", [ROWS, ROWS.replace('"', "'"), CONVERTED, "A first line.\nA second one\n" + "word " * 60]
)
def test_of_a_cut_result_only_what_stands_there_whole_is_said(text: str, limit: int) -> None:
    seen = shown(text, limit)
    answer = said(seen)
    assert len(answer) <= LONGEST + 60
    assert not answer.endswith("...")
    if seen != text:
        assert "and more" in answer or "longer than" in answer
    for city, day in re.findall(r"City number (\d+) (\S+?)[;.,]? ", answer + " "):
        assert day == f"2020-09-{int(city) + 10}", "a row is said whole or not at all"
    for number in re.findall(r"\d+\.\d+", answer):
        assert number in ("180.0", "4.572")


def test_json_over_many_lines_is_shown_on_one() -> None:
    assert shown('{\n  "a": [\n    1\n  ]\n}', 50) == '{"a": [1]}'
    assert shown("{ no\n json", 50) == "{ no\n json"
    assert len(shown(json.dumps(list(range(99)), indent=4), 50)) == 50

"""Rows as people see them: every token once, in the right colour, as text whatever it holds."""

from html import unescape
from pathlib import Path
from re import findall, sub
from typing import Any

import pytest
from handmade import build_tokenizer, preference_rows, sft_row, trl_template

from rise_train.rows.budget import Budget
from rise_train.rows.check import CheckReport, check_preference, check_sft
from rise_train.rows.coloured import paint, views, write_page
from rise_train.rows.masking import use_training_template


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    built = build_tokenizer(trl_template("qwen3"))
    use_training_template(built)
    return built


def poisoned() -> dict[str, Any]:
    row = sft_row(1)
    row["messages"][2]["content"] = "</pre><script>alert('1')</script> & order_id: O-713, 2 items"
    return row


def test_a_conversation_shows_each_token_once_and_what_is_trained(tokenizer: Any) -> None:
    report = check_sft(tokenizer, [poisoned()], None)
    (view,) = views(tokenizer, report, 5)
    assert "".join(p.text for p in view.pieces) == tokenizer.decode(report.encoded[0].input_ids)
    trained = [p.text for p in view.pieces if p.kind == "trained"]
    assert trained == [tokenizer.decode(target) for target in report.encoded[0].targets]
    plain = paint(view, plain=True).plain
    assert [f"\N{LEFT ANGLE BRACKET}{text}\N{RIGHT ANGLE BRACKET}" in plain for text in trained] == [True] * 3
    styles = {paint(view).plain[s.start : s.end]: s.style for s in paint(view).spans}
    assert [styles[text] for text in trained] == ["green"] * 3


def test_a_pair_shows_what_differs(tokenizer: Any) -> None:
    group = preference_rows(sft_row(0))[0]  # Bern against Oslo, and so on
    report = check_preference(tokenizer, [group], None)
    (view,) = views(tokenizer, report, 1)
    pair = report.pairs[0]
    assert "".join(p.text for p in view.pieces) == tokenizer.decode(pair.prompt_ids + pair.chosen_ids)
    assert "".join(p.text for p in view.rejected) == tokenizer.decode(pair.rejected_ids)
    (right,) = [p.text for p in view.pieces if p.kind == "right"]
    (wrong,) = [p.text for p in view.rejected if p.kind == "wrong"]
    assert right in '"Bern"'
    assert wrong in '"Oslo"'
    plain = paint(view, plain=True).plain
    assert f"[+{right}+]" in plain
    assert f"[-{wrong}-]" in plain


def test_a_difference_inside_a_character_shows_whole_characters(tokenizer: Any) -> None:
    group = preference_rows(sft_row(0))[0]
    for side, city in ((group["chosen"], "中"), (group["rejected"][0], "丮")):  # three bytes each, the first the same
        side[0]["tool_calls"][0]["function"]["arguments"]["city"] = city
    (view,) = views(tokenizer, check_preference(tokenizer, [group], None), 1)
    assert not any("\ufffd" in piece.text for piece in [*view.pieces, *view.rejected])
    assert "中" in next(p.text for p in view.pieces if p.kind == "right")


def write(path: Path, tokenizer: Any, report: CheckReport) -> str:
    write_page(path, Path("recipe.yaml"), report, views(tokenizer, report, 9))
    return path.read_text("utf-8")


def test_the_page_holds_the_rows_as_text_and_asks_no_network(tokenizer: Any, tmp_path: Path) -> None:
    report = check_sft(tokenizer, [poisoned()], 4096)
    page = write(tmp_path / "p.html", tokenizer, report)
    assert "<script" not in page
    assert not findall(r"(?:https?:)?//\w|src=|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    (shown,) = findall(r'<pre class="all">(.*?)</pre>', page.replace("\n", "\x00"))
    text = unescape(sub(r"<[^>]+>", "", shown)).replace("\x00", "\n")
    assert text == tokenizer.decode(report.encoded[0].input_ids)
    trained = [unescape(t) for t in findall(r'<span class="trained">([^<]+)</span>', page)]
    assert trained[1:] == [tokenizer.decode(target) for target in report.encoded[0].targets]


def test_the_page_of_pairs(tokenizer: Any, tmp_path: Path) -> None:
    report = check_preference(tokenizer, preference_rows(sft_row(0)), 4096)
    page = write(tmp_path / "p.html", tokenizer, report)
    assert page.count('<pre class="answer rejected">') == 1
    assert page.count('class="right"') == page.count('class="wrong"') == 2  # one in the legend
    assert "same in both answers, before the first difference" in page


def test_budget() -> None:
    budget = Budget(10, prompts=[1, 2, 3], rows=list(range(1, 101)))
    assert budget.over == 90
    assert budget.line() == "90 of 100 rows are longer than max_length 10; max_length: 100 keeps all"
    assert dict(budget.percentiles()) == {"prompt": [2, 3, 3, 3], "row": [50, 90, 99, 100]}
    assert Budget(100, rows=[40, 100]).line() == "max_length 100 keeps all 2 rows; max_length: 100 would do"
    assert Budget(None, rows=[7]).line() == "no max_length; the longest of 1 rows has 7 tokens"


def test_the_budget_counts_what_the_check_saw(tokenizer: Any) -> None:
    rows = [sft_row(i) for i in range(6)]
    report = check_sft(tokenizer, rows, 10**6)
    assert report.budget.rows == [len(e.input_ids) for e in report.encoded]
    assert report.budget.prompts == [e.spans[0][0] for e in report.encoded]
    assert sum(report.budget.answers) == report.target_tokens
    pairs = check_preference(tokenizer, [g for row in rows for g in preference_rows(row)], 10**6)
    assert pairs.budget.rows == [max(p.length for p in g.pairs) for g in pairs.groups]
    for pair, agree, differ in zip(pairs.pairs, pairs.budget.agree, pairs.budget.differ, strict=True):
        assert pair.chosen_ids[:agree] == pair.rejected_ids[:agree]
        assert pair.chosen_ids[agree] != pair.rejected_ids[agree]
        assert agree + differ < len(pair.chosen_ids)


def test_a_row_that_is_dropped_still_counts_in_the_budget(tokenizer: Any) -> None:
    rows = [sft_row(i) for i in range(6)]
    limit = sorted(check_sft(tokenizer, rows, None).budget.rows)[2]
    report = check_sft(tokenizer, rows, limit, "drop")
    assert (len(report.budget.rows), report.budget.over) == (6, 3)

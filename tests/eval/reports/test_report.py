"""The report: what it says, that it stands alone, and that nothing in the data can break out of it."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from arms import GOLD, results_of, task

from eval.reports import shown_tasks as samples
from eval.reports.charts import curve_chart, rate_chart
from eval.reports.report import comparisons, find_test, headline, print_table, write_report
from eval.scores.causes import CAUSES
from eval.scores.compare import compare
from eval.scores.metrics import METRICS, rates


def ablation_of(results: dict[str, Any]) -> dict[str, Any]:
    arms = {
        arm: {"metrics": rates(r["tasks"]), "model": f"models/{arm}", "seconds": 12.0} for arm, r in results.items()
    }
    tests = compare({arm: [r] for arm, r in results.items()})
    return {"arms": arms, "tests": tests, "seeds": [0], "data": {"servers": {"excel": "1.2"}, "counts": [1, 2]}}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return results_of(raw=range(3), sft=range(50), sft_dpo=range(10, 60), sft_more=range(52))


@pytest.fixture(scope="module")
def ablation(results: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(ablation_of(results)))


HISTORIES: dict[str, Any] = {
    "raw": [],
    "sft": [{"step": 5 * i, "loss": 2 / i} for i in range(1, 9)] + [{"step": 40, "train_runtime": 3.0}],
    "sft_dpo": [
        {"step": i, "loss": 0.69 - i / 50, "rewards/margins": i / 10, "logps/chosen": -9.0, "logps/rejected": -9.0 - i}
        for i in range(1, 9)
    ],
}


@pytest.fixture(scope="module")
def page(ablation: dict[str, Any], results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "sub" / "report.html"
    write_report(ablation, results, HISTORIES, path)
    return path.read_text("utf-8")


class Elements(HTMLParser):
    """Checks that elements nest, and gathers ids and what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "link", "img", "hr"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.loaded.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()


def read(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def test_the_page_stands_alone_and_is_well_formed(page: str) -> None:
    elements = read(page)
    assert elements.open == []
    assert len(elements.ids) == len(set(elements.ids))
    assert elements.loaded == []
    assert not {"script", "link", "img", "iframe"} & set(elements.tags)
    assert not re.search(r"url\((?!#)|@import", page)
    assert set(re.findall(r"https?://[^\"' <]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page)) != set()
    for pair in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", page):
        assert "".join(pair) in elements.ids


def test_the_page_holds_every_rate_interval_and_verdict(page: str, ablation: dict[str, Any]) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for arm in ablation["arms"].values():
        for rate in arm["metrics"].values():
            assert f"{100 * rate['value']:.1f}" in text
            assert f"{100 * rate['low']:.1f}–{100 * rate['high']:.1f}" in text  # noqa: RUF001
    assert "= no difference on" in text
    assert page.count("<svg") == len(METRICS) + 4
    assert "models/sft_dpo" in text
    assert "excel 1.2" in " ".join(text.split())


def test_the_page_marks_the_deviating_value(page: str) -> None:
    assert page.count('<article class="card sample">') == 10
    assert "<mark>&#34;Summary&#34;</mark>" in page
    assert "asked: &#34;Orders&#34;" in page
    assert page.count("as asked</span>") > 3


def test_the_same_data_give_the_same_page(
    ablation: dict[str, Any], results: dict[str, Any], page: str, tmp_path: Path
) -> None:
    write_report(ablation, results, HISTORIES, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text("utf-8") == page


def test_data_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\ud800"
    results = {"raw": {"tasks": [task(0, False, evil)]}, evil[:8]: {"tasks": [task(0, True, evil)]}}
    results["raw"]["tasks"][0]["turns"][0] |= {"problem": evil, "reply": evil, "predicted": [], "verdict": "unreadable"}
    write_report({**ablation_of(results), "data": {evil[:25]: evil[:25]}}, results, {}, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "script" not in read(page).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\ud800" in page


def test_a_lone_arm_without_tests_logs_or_samples_still_makes_a_page(tmp_path: Path) -> None:
    ablation = {**ablation_of(results_of(raw=range(5))), "data": {}}
    write_report(ablation, {}, {}, tmp_path / "r.html")
    elements = read((tmp_path / "r.html").read_text("utf-8"))
    assert elements.open == []
    assert "article" not in elements.tags


def test_the_headline_counts_verdicts_against_where_an_arm_started(ablation: dict[str, Any]) -> None:
    assert comparisons(ablation) == [("sft", "raw"), ("sft_dpo", "sft"), ("sft_dpo", "sft_more"), ("sft_more", "sft")]
    assert headline(ablation)[0] == "+SFT against Raw: better on 5, no difference on 4 of 9 metrics."
    assert headline(ablation)[1] == "SFT+DPO against +SFT: no difference on 9 of 9 metrics."


def test_a_test_is_found_either_way_round(ablation: dict[str, Any]) -> None:
    forth, back = (find_test(ablation, "acc_task", *pair) for pair in (("sft", "raw"), ("raw", "sft")))
    assert forth
    assert back
    assert (forth["verdict"], back["verdict"]) == ("better", "worse")
    assert (back["difference"], back["low"], back["high"]) == (-forth["difference"], -forth["high"], -forth["low"])
    assert find_test(ablation, "acc_task", "sft", "nothing") is None


def test_the_terminal_table_fits_eighty_columns(ablation: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(ablation, console)
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    for needle in ("acc_task", "trajectory_match", "83.3 ▲", "5.0", "SFT, longer", "no difference on 9 of 9"):
        assert needle in text


def test_easy_and_hard_requests_have_their_own_table(
    ablation: dict[str, Any], results: dict[str, Any], tmp_path: Path
) -> None:
    from rich.console import Console

    parts = {
        name: {arm: {"tasks": run["tasks"][chosen]} for arm, run in results.items()}
        for name, chosen in (("easy", slice(0, 20)), ("hard", slice(20, 60)))
    }
    arms = {arm: {**entry, "causes": dict.fromkeys(CAUSES, 3)} for arm, entry in ablation["arms"].items()}
    both = {**ablation, "arms": arms, "by_difficulty": {name: ablation_of(part) for name, part in parts.items()}}
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(both, console)
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    shares = {name: part["arms"]["sft"]["metrics"]["acc_intent"] for name, part in both["by_difficulty"].items()}
    for name, rate in shares.items():
        line = next(line for line in text.splitlines() if f"acc_intent, {name}" in line)
        assert f"{100 * rate['value']:.1f}" in line
    write_report(both, results, {}, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<h2>Hard requests</h2>" in page
    assert page.count(f"<td>{100 * 3 / 60:.1f}</td>") == len(arms) * len(CAUSES)
    assert "40 tasks; the tests of this table" in page
    assert read(page).open == []


def test_an_arm_of_ones_own_is_measured_against_what_it_was_tested_against(results: dict[str, Any]) -> None:
    named = {"raw": results["raw"], "sft": results["sft"], "mined": results["sft_dpo"]}
    tests = compare({arm: [run] for arm, run in named.items()}, [("sft", "raw"), ("mined", "sft"), ("mined", "raw")])
    ablation = {**ablation_of(named), "tests": tests}
    assert comparisons(ablation) == [("sft", "raw"), ("mined", "sft"), ("mined", "raw")]


def test_samples_show_every_combination_of_right_and_wrong(results: dict[str, Any]) -> None:
    chosen = samples.choose(results, 10)
    assert chosen == samples.choose(results, 10)
    assert len({s.id for s in chosen}) == 10
    kinds = {tuple(sorted((a.verdict, tuple(a.arms)) for a in s.answers)) for s in chosen}
    assert len(kinds) == 5, "five combinations occur in the data, and the page shows them all"
    assert len(samples.choose(results, 100)) == 60
    assert samples.choose({}, 10) == []


def shown(predicted: list[dict[str, Any]], verdict: str = "deviates", **turn: Any) -> list[samples.ShownCall]:
    entry = task(0, True)
    entry["turns"][0] |= {"predicted": predicted, "verdict": verdict, **turn}
    return samples.shown({"raw": entry}).answers[0].calls


def test_each_way_to_deviate_is_marked_as_what_it_is() -> None:
    (wrong,) = shown([{"name": "excel__read", "arguments": {"rows": 3, "sheet": "Summary", "more": 1}}])
    assert [(a.key, a.state, a.expected, a.critical) for a in wrong.arguments] == [
        ("sheet", "wrong", "Orders", True),
        ("rows", "ok", 3, False),
        ("more", "extra", None, False),
    ]
    (short,) = shown([{"name": "excel__read", "arguments": {"rows": 3}}])
    assert [(a.key, a.state) for a in short.arguments] == [("sheet", "missing"), ("rows", "ok")]
    other = shown([{"name": "git__log", "arguments": {"n": 1}}])
    assert [(c.name, c.state) for c in other] == [("git__log", "extra"), ("excel__read", "missing")]
    twice = shown([GOLD[0], GOLD[0]])
    assert [c.state for c in twice] == ["ok", "extra"]


def test_an_equivalent_call_has_no_marks() -> None:
    (same,) = shown([{"name": "excel__read", "arguments": {"sheet": "orders", "more": 1}}], "equivalent")
    assert {a.state for a in same.arguments} == {"ok"}


def test_the_turn_shown_is_the_first_in_which_an_arm_deviates() -> None:
    first, second = task(0, True), task(0, True)
    for entry, verdicts in ((first, ["exact", "exact", "deviates"]), (second, ["exact", "unreadable", "exact"])):
        entry["turns"] = [{**entry["turns"][0], "verdict": verdict} for verdict in verdicts]
    found = samples.shown({"a": first, "b": second})
    assert (found.turn, found.turns) == (2, 3)


def test_charts_take_the_pages_colours_and_are_reproducible() -> None:
    rate = {"value": 0.5, "low": 0.4, "high": 0.6}
    bars = rate_chart({"A": rate, "B": rate}, {"A": 0, "B": 4}, "k")
    assert bars == rate_chart({"A": rate, "B": rate}, {"A": 0, "B": 4}, "k")
    assert "var(--arm-0)" in bars
    assert "var(--arm-4)" in bars
    assert not re.search(r"#[0-9a-f]{6}\b", bars)
    curve = curve_chart(
        {"A": [(1, 2.0)], "B": [(1, 1.0), (2, 0.5)]}, {"A": 1, "B": 2}, "c", {"B": [(1, 0.0), (2, 1.0)]}
    )
    assert "stroke-dasharray" in curve
    assert not re.search(r"#[0-9a-f]{6}\b", curve)

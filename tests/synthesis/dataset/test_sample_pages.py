"""Pages and the browser: everything of the dataset is there, the filters choose, and poisoned text stays text."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from synthesis.dataset import html_browser
from synthesis.dataset.reading import Stored, read
from synthesis.dataset.sample_pages import Filter, Page, difference, find, pages, within
from synthesis.dataset.source import Row, Source
from synthesis.dataset.writing import write
from synthesis.records import Step

POISON = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[2J __DATA__ \u2028 <!--"


@pytest.fixture(scope="module")
def stored(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The fakes' dataset, with one tool result that tries to break out."""
    poisoned = next(iter(source.trajectories.values()))
    steps = [Step(**{**step.model_dump(), "result": POISON}) for step in poisoned.steps]
    trajectories = {**source.trajectories, poisoned.id: poisoned.model_copy(update={"steps": steps})}
    folder = tmp_path_factory.mktemp("run")
    changed = Source(source.tools, trajectories, source.samples, source.negatives)
    write(changed, folder / "dataset", {"isolation": "none", "seed": 0})
    return read(folder)


@pytest.fixture(scope="module")
def found(stored: Stored) -> list[Page]:
    return pages(stored)


def test_every_sample_and_every_negative_has_its_place(stored: Stored, found: list[Page]) -> None:
    assert len(found) == 120
    shown = {n["id"]: n for page in found for turn in page["turns"] for n in turn["negatives"]}
    written = [
        (told, rejected, row)
        for rows in stored.preference.values()
        for row in rows
        for told, rejected in zip(row["meta"]["negatives"], row["rejected"], strict=True)
    ]
    assert len(shown) == len(written) > 300
    for told, rejected, row in written:
        assert shown[told["id"]]["calls"] == [call["function"] for call in rejected[0]["tool_calls"]]
        assert find(found, told["id"])[0]["id"] == row["meta"]["sample_id"]
    for page in found:
        results = [m["content"] for m in find_row(stored, page)["messages"] if m["role"] == "tool"]
        assert [text for turn in page["turns"] for text in turn["results"]] == results
        assert [page["id"]] == [p["id"] for p in find(found, page["id"])]
        assert page in find(found, page["primitives"][0])


def find_row(stored: Stored, page: Page) -> Row:
    return next(row for row in stored.sft[page["split"]] if row["meta"]["id"] == page["id"])


def test_the_marked_difference_is_what_the_mutations_say(stored: Stored, found: list[Page]) -> None:
    told = {n["id"]: n for rows in stored.preference.values() for row in rows for n in row["meta"]["negatives"]}
    for page in found:
        for turn in page["turns"]:
            for negative in turn["negatives"]:
                expected = {(m["call"], m["parameter"]) for m in told[negative["id"]]["mutations"]}
                marked = {
                    (call, name)
                    for call in range(len(turn["calls"]))
                    for name in difference(turn["calls"], negative["calls"], call)
                }
                assert marked == expected
    assert difference([{"arguments": {"a": 1, "b": 2}}], [{"arguments": {"a": True, "b": 2}}], 0) == {"a"}
    assert difference([{"arguments": {"a": 1}}], [{"arguments": {"b": 1}}], 0) == {"a", "b"}


def test_filters_choose_pages_and_negatives(found: list[Page]) -> None:
    kinds = {n["kind"] for page in found for turn in page["turns"] for n in turn["negatives"]}
    for kind in kinds:
        narrowed = Filter(kind=kind, split="test")(found)
        assert {p["split"] for p in narrowed} <= {"test"}
        assert {n["kind"] for p in narrowed for t in p["turns"] for n in t["negatives"]} <= {kind}
    server = found[0]["servers"][0]
    assert 0 < len(Filter(server=server)(found)) < len(found)
    assert Filter(executed="covert")(found) == []
    assert Filter()(found) == found


def test_the_browser_holds_everything_and_poison_stays_text(stored: Stored, found: list[Page], tmp_path: Path) -> None:
    assert html_browser.write(stored, tmp_path / "data.html") == (120, 120)
    text = (tmp_path / "data.html").read_text(encoding="utf-8")
    data = html_browser.embedded(text)
    assert data["pages"] == json.loads(json.dumps(found))
    assert POISON in json.dumps(data, ensure_ascii=False).replace('\\"', '"').replace("\\u001b", "\x1b")
    assert text.count("<script") == text.count("</script>") == 2
    assert "default-src 'none'" in text
    assert not re.search(
        r"(?:src|href)=|https?://", re.sub(r'<script id="data".*?</script>', "", text, flags=re.DOTALL)
    )
    assert "innerHTML" not in text


def test_a_dataset_beyond_the_cap_is_shown_by_a_stated_sample(
    stored: Stored, found: list[Page], tmp_path: Path
) -> None:
    shown, total = html_browser.write(stored, tmp_path / "data.html", max_bytes=60_000)
    assert 0 < shown < total == 120
    assert html_browser.embedded((tmp_path / "data.html").read_text())["total"] == 120
    assert (tmp_path / "data.html").stat().st_size < 100_000
    assert within(found, 60_000) == within(found, 60_000)
    assert within(found, 60_000, seed=1) != within(found, 60_000)


PROBE = """<script>
const log = [], place = () => document.getElementById("place").textContent;
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const search = words => { document.getElementById("search").value = words; narrow(); log.push(place()); };
log.push("images " + document.images.length);
for (const key of ["j", "ArrowRight", "k", "ArrowLeft", "ArrowLeft"]) { press(key); log.push(place()); }
search("alert(1)");
log.push(document.querySelector(".result").textContent.startsWith("</scr" + "ipt>"));
search('"city":"nowhere"');
search("");
const kinds = document.querySelector("select[aria-label=mutation]");
kinds.value = kinds.options[1].value;
kinds.dispatchEvent(new Event("change"));
log.push([...new Set([...document.querySelectorAll(".who .chip:first-child")].map(chip => chip.textContent))].join());
document.title = log.join("; ");
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_in_a_real_browser_keys_search_and_filters_work_and_poison_does_not_run(
    stored: Stored, found: list[Page], tmp_path: Path
) -> None:
    html_browser.write(stored, tmp_path / "data.html")
    page = (tmp_path / "data.html").read_text(encoding="utf-8").replace("</body>", PROBE)
    (tmp_path / "probe.html").write_text(page, encoding="utf-8")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    switches += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command = ["chromium", *switches, "--dump-dom", (tmp_path / "probe.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    said = re.findall(r"<title>(.*?)</title>", shown)[0].split("; ")
    poisoned = sum(any(POISON in text for turn in page["turns"] for text in turn["results"]) for page in found)
    kind = min(n["kind"] for p in found for t in p["turns"] for n in t["negatives"]).replace("_", " ")
    places = [f"{number} of 120" for number in (2, 3, 2, 1, 1)]
    assert said == ["images 0", *places, f"1 of {poisoned}", "true", "nothing found", "1 of 120", kind]

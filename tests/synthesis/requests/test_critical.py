"""Critical parameters: what counts as said, and both verdicts."""

import os
from pathlib import Path

import pytest
from authoring import SEQUENTIAL, SINGLE, TOOLS, TRAJECTORIES, make_author

from synthesis.authors.base import Draft
from synthesis.records import CriticalParameter, Edge, Json, Step, Tool, Trajectory
from synthesis.requests.critical import agreed, ground
from synthesis.text.equality import normal_form, same_meaning
from synthesis.text.evidence import supported
from synthesis.text.kinds import kind_of
from synthesis.text.saying import say


def draft(request: str, *claims: tuple[int, str, Json, str]) -> Draft:
    critical = [CriticalParameter(step=s, parameter=p, value=v, evidence=e) for s, p, v, e in claims]
    return Draft(request=request, response="Done.", style="plain", critical=critical)


def verdicts(trajectory: Trajectory, written: Draft) -> dict[str, tuple[bool, bool]]:
    return {c.parameter: (c.by_author, c.by_rule) for c in ground(trajectory, written, TOOLS)}


@pytest.mark.parametrize("trajectory", TRAJECTORIES, ids=lambda t: t.pattern)
def test_author_and_rule_agree_on_what_the_author_wrote(tmp_path: Path, trajectory: Trajectory) -> None:
    author = make_author(tmp_path)
    for variant in range(8):
        found = ground(trajectory, author.compose(trajectory, TOOLS, variant, 0), TOOLS)
        assert agreed(found) == found
        assert len(found) == sum(len(step.arguments) for step in trajectory.steps) - len(trajectory.edges)


def test_a_claim_without_the_words_is_kept_as_disagreement() -> None:
    written = draft(
        "Find the orders of Ben Costa since January 19th, unpaid ones.",
        (0, "customer", "Ben Costa", "of Ben Costa"),
        (0, "since", "2026-01-19", "since January 19th"),
        (0, "limit", 5, "at most five"),
        (0, "paid", False, "unpaid ones"),
    )
    assert verdicts(SINGLE, written) == {
        "customer": (True, True),
        "since": (True, True),
        "limit": (True, False),
        "paid": (True, False),
    }


def test_the_rule_finds_what_the_author_did_not_claim() -> None:
    assert verdicts(SINGLE, draft("At most 5 orders, please.")) == {"limit": (False, True)}


def test_a_value_from_a_result_is_not_critical() -> None:
    written = draft('Open a basket for Oslo, then note "Please ring twice" on that basket.')
    assert "basket_id" not in verdicts(SEQUENTIAL, written)
    coincidence = draft("Open a basket for Oslo like B-77, then note Please ring twice on it.")
    assert "basket_id" not in verdicts(SEQUENTIAL, coincidence)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "the first five rows"),
        (1200, "about 1,200 pieces"),
        (3.0, "take 3 of them"),
        ("2026-01-19", "on January 19th"),
        ("14:30", "at 2:30 pm"),
        ("/data/sales.xlsx", "open sales.xlsx."),
        ("Europe/Paris", "the time in Paris"),
        ("A1:C5", "from A1 to C5"),
        ("bar_chart", "as a bar chart"),
        ("#FF0000", "in FF0000"),
        (["North", "South"], "for North and South"),
        ([[1, 2], [3, 4]], "put 1 and 2; 3 and 4 there"),
        ("Anna  Weber", "ask ANNA weber"),
        (17, "seventeen guests"),
        (23.0, "an area of 23.0, please"),
        (150, "a weight of 150lbs"),
        (4, "a 4-star hotel"),
        (600, "a picture of 800x600"),
        ("2026-01-19", "by 1/19/2026"),
        ("2026-01-19", "am 19.1.2026"),
        ("cat", "pictures of cats"),
        ("movies", "one movie"),
        ("Java, Python, React", "with Python, Java and React"),
    ],
)
def test_normal_forms_support_a_value(value: Json, text: str) -> None:
    assert supported(value, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("A1", "the range A1:C5"),
        (5, "5.5 or 15 or 2026-05-05"),
        ("/data", "in /data/sales.xlsx"),
        ("Ann", "ask Anna"),
        (["North", "West"], "for North and South"),
        (True, "true"),
        (3, "the room 13"),
        (3, "the 3rd room"),
        (15, "version 2.15beta"),
        ("bus", "all buzz"),
        ("Java, Python", "with Java"),
    ],
)
def test_parts_of_other_words_do_not_support_a_value(value: Json, text: str) -> None:
    assert not supported(value, text)


def test_equal_meaning() -> None:
    assert same_meaning("Anna Weber", " anna  weber")
    assert same_meaning(3, 3.0)
    assert same_meaning("2 * 3", "3 * 2")
    assert same_meaning("$A$1", "A1")
    assert same_meaning("/data/./x.csv", "/data/x.csv")
    assert not same_meaning("2 * 3", "2 * 4")
    assert not same_meaning(True, 1)
    assert normal_form({"b": 1, "a": [2.50]}) == normal_form({"a": [2.5], "b": 1})


def test_values_are_said_as_a_user_says_them() -> None:
    assert say([10, 20.0, 2.5]) == "10, 20 and 2.5"
    assert say([["North", 1], ["South", 2]]) == "North and 1; South and 2"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("B12", "cell"), ("2026-01-19", "date"), ("9:05", "time"), ("Asia/Tokyo", "zone"), ("report.docx", "path"),
        ("12 * (3 + 4)", "expression"), ("SELECT 1", "statement"), ("a@b.org", "address"), ("A-101", "identifier"),
        ("Anna Weber", "name"), ("to be checked", "text"), (True, "boolean"), (2, "number"), (None, "null"),
    ],
)  # fmt: skip
def test_kinds(value: Json, kind: str) -> None:
    assert kind_of(value) == kind


def test_six_hex_digits_are_a_colour_only_where_a_colour_is_meant() -> None:
    assert kind_of("00B050", "fill_color") == "color"
    assert kind_of("202601", "month") != "color"


def test_the_brewery_example_of_the_paper() -> None:
    """RISE, section 2: type, city, state and size are critical, the id that goes from call to call is not."""
    tools = {
        name: Tool(server="brewery", name=name, input_schema={"type": "object"})
        for name in ("search", "by_id", "random")
    }
    calls: list[tuple[str, dict[str, Json], str]] = [
        ("search", {"by_type": "micro", "by_city": "San Diego", "by_state": "California"}, "id: 5494-ab, Kilowatt"),
        ("by_id", {"id": "5494-ab"}, "Kilowatt, micro, San Diego"),
        ("random", {"size": 3}, "three breweries"),
    ]
    trajectory = Trajectory(
        id="brewery",
        pattern="sequential",
        steps=[
            Step(turn=turn, tool=name, arguments=arguments, result=result, primitive_id=name)
            for turn, (name, arguments, result) in enumerate(calls)
        ],
        edges=[Edge(source=0, target=1, parameter="id", value="5494-ab")],
    )
    request = (
        "Find a micro brewery in San Diego, California, give me the details of the first one, "
        "and then suggest three random breweries."
    )
    claims = [(0, "by_type", "micro"), (0, "by_city", "San Diego"), (0, "by_state", "California"), (2, "size", "three")]
    written = draft(request, *((s, p, trajectory.steps[s].arguments[p], words) for s, p, words in claims))
    critical = agreed(ground(trajectory, written, tools))
    assert [c.parameter for c in critical] == ["by_type", "by_city", "by_state", "size"]
    assert {calls[c.step][0] for c in critical} == {"search", "random"}
    by_rule_alone = ground(trajectory, draft(request), tools)
    assert [c.parameter for c in by_rule_alone] == ["by_type", "by_city", "by_state", "size"]


@pytest.mark.skipif("RISE_BENCHMARKS" not in os.environ, reason="RISE_BENCHMARKS names no folder of benchmarks")
def test_the_rule_on_labels_of_public_benchmarks() -> None:
    from tests.bench import critical as critical_bench

    folder = Path(os.environ["RISE_BENCHMARKS"])
    for load, recall in ((critical_bench.nestful, 0.7), (critical_bench.sealtools, 0.95)):
        counts, _ = critical_bench.measure(load(folder))
        assert counts.total() > 500
        assert critical_bench.rates(counts, positive=True)[0] > 0.99
        assert critical_bench.rates(counts, positive=True)[1] >= recall

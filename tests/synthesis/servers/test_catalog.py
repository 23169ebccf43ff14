"""Choosing from a listing of a thousand: criteria with reasons, one server of each name, seats by stratum."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from rise_train.commands.servers import app
from synthesis.errors import UserError
from synthesis.seeds import seeded
from synthesis.servers.catalog import Criteria, Entry, deduplicate, load, plain_name, seats, select
from synthesis.text.embedding import available, encode

needs_encoder = pytest.mark.skipif(not available(), reason="needs the extra: pip install 'rise-train[embeddings]'")
DOMAINS = {
    "search": 30,
    "finance": 21,
    "calendar": 15,
    "maps": 12,
    "databases": 10,
    "music": 6,
    "games": 4,
    "weather": 2,
}
THINGS = [
    "Postgres",
    "Spotify",
    "Notion",
    "Trello",
    "Slack",
    "Jira",
    "Figma",
    "Stripe",
    "Airbnb",
    "Docker",
    "Kafka",
    "Redis",
    "Tesla",
    "Chess",
    "Wikipedia",
]
WORDS = [
    "search",
    "invoice",
    "forecast",
    "playlist",
    "ticket",
    "flight",
    "recipe",
    "translate",
    "archive",
    "scrape",
    "diagram",
    "quiz",
    "poem",
    "tax",
    "gym",
]


def listing(size: int = 1000) -> list[dict[str, Any]]:
    """A made-up registry: skewed domains and stars, planted near-duplicate names, and entries that lack things."""
    rng = seeded(0, "listing")
    domains = [name for name, weight in DOMAINS.items() for _ in range(weight)]
    servers: list[dict[str, Any]] = []
    for number in range(size):
        thing, word = rng.choice(THINGS), rng.choice(WORDS)
        entry: dict[str, Any] = {
            "name": f"{thing} {word}",
            "description": f"Gives an agent {word} for {thing}.",
            "tags": [rng.choice(domains), "mcp"],
            "stars": int(rng.paretovariate(0.9)),
            "readme": f"# {thing}",
            "repository": f"https://example.org/{number}",
            "tools": rng.randint(1, 30),
            "requires_key": rng.random() < 0.2,
            "downloads": 7,
        }
        if rng.random() < 0.2:
            entry["name"] = rng.choice(["{} {} MCP", "{}-{}-mcp-server", "mcp {} {} server"]).format(thing, word)
        for lacking in ("description", "readme", "tags", "tools", "stars"):
            if rng.random() < 0.03:
                entry.pop(lacking)
        servers.append(entry)
    return servers


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "listing.json"
    path.write_text(json.dumps(listing()))
    return path


def vectors(entries: list[Entry]) -> NDArray[np.float32]:
    return encode([plain_name(entry.name) for entry in entries])


@needs_encoder
def test_a_hundred_of_a_thousand(registry: Path) -> None:
    entries = load(registry)
    choice = select(entries, 100)
    assert len(entries) == 1000
    assert len(choice.chosen) == 100
    assert len(choice.dropped) == 900
    assert all(reason for _, reason in choice.dropped)
    assert not [entry for entry in choice.chosen if Criteria().against(entry)]

    assert sum(row["listed"] for row in choice.strata.values()) == 1000
    left = {name: row["left"] for name, row in choice.strata.items() if row["left"]}
    for name, row in choice.strata.items():
        share = 100 * row["left"] / sum(left.values())
        assert row["chosen"] in {max(1, math.floor(share)), max(1, math.ceil(share))} or not row["left"]
        assert row["chosen"] == sum(entry.stratum == name for entry in choice.chosen)
    assert set(left) >= set(DOMAINS)

    found = vectors(choice.chosen)
    cosines = found @ found.T
    np.fill_diagonal(cosines, 0)
    assert cosines.max() < 0.8
    backwards = select(list(reversed(entries)), 100)
    assert backwards.report() == choice.report()


@needs_encoder
def test_of_names_that_are_near_the_most_starred_one_stays(registry: Path) -> None:
    entries = sorted(load(registry), key=lambda entry: -entry.stars)
    kept, twins = deduplicate(entries)
    places = {id(entry) for entry in kept}
    gone = [entry for entry in entries if id(entry) not in places]
    assert [entry.name for entry in gone] == [name for name, _ in twins]
    assert len(gone) > 300
    cosines = vectors(gone) @ vectors(kept).T
    for entry, row in zip(gone, cosines, strict=True):
        near = [other.stars for other, cosine in zip(kept, row, strict=True) if cosine >= 0.8]
        assert near, f"{entry.name} was left out for nothing"
        assert max(near) >= entry.stars
    pair = [Entry(name="Google Maps", stars=5), Entry(name="google-maps mcp", stars=4), Entry(name="Chess", stars=3)]
    assert [entry.stars for entry in deduplicate(pair)[0]] == [5, 3]
    alike = [
        Entry(name="Chess MCP server"),
        Entry(name="Tax MCP server"),
        Entry(name="mcp-server"),
        Entry(name="@x/tax_mcp"),
    ]
    assert [entry.name for entry in deduplicate(alike)[0]] == ["Chess MCP server", "Tax MCP server", "mcp-server"]


@needs_encoder
def test_near_is_not_only_equal_and_the_order_of_the_listing_plays_no_part() -> None:
    about = {"description": "Finds places.", "docs": "readme", "tags": ["maps"]}
    names = {"Maps by Google": 7, "Google Maps": 90, "google-maps mcp": 8, "Chess": 1}
    entries = [Entry(name=name, stars=stars, **about) for name, stars in names.items()]
    cosine = float(np.prod(vectors(entries[:2]), axis=0).sum())
    assert 0.8 < cosine < 0.95
    choice = select(entries, 4)
    assert [entry.name for entry in choice.chosen] == ["Google Maps", "Chess"]
    assert [name for name, _ in choice.dropped] == ["google-maps mcp", "Maps by Google"]
    assert f"near 'Google Maps' (cosine {cosine:.2f})" in choice.dropped[1][1]
    assert [entry.name for entry in select(entries, 1).chosen] == ["Google Maps"]
    assert len(select(entries, 4, near=0.97).chosen) == 3


@pytest.mark.parametrize(
    ("criteria", "entry", "reason"),
    [
        (Criteria(), {}, ""),
        (Criteria(), {"description": " "}, "has no description"),
        (Criteria(), {"docs": ""}, "has no docs"),
        (Criteria(), {"requires_key": True}, "needs a key"),
        (Criteria(no_key=False), {"requires_key": True}, ""),
        (Criteria(min_stars=10), {"stars": 9}, "has fewer than 10 stars"),
        (Criteria(), {"tools": 0}, "has fewer than 1 tools"),
        (Criteria(transport="stdio"), {"transport": "http"}, "does not speak stdio"),
        (Criteria(transport="stdio"), {}, ""),
        (Criteria(license=True), {}, "has no license"),
    ],
)
def test_criteria_say_why(criteria: Criteria, entry: dict[str, Any], reason: str) -> None:
    full = {"name": "Chess", "description": "Plays.", "docs": "readme", **entry}
    assert criteria.against(Entry.model_validate(full)) == reason


@given(
    st.dictionaries(st.text("abcdefgh", min_size=1), st.integers(1, 300), min_size=1, max_size=12), st.integers(1, 400)
)
def test_seats_add_up_and_none_goes_empty(sizes: dict[str, int], count: int) -> None:
    if count < len(sizes):
        with pytest.raises(UserError, match="one for each stratum"):
            seats(sizes, count)
        return
    given = seats(sizes, count)
    assert sum(given.values()) == min(count, sum(sizes.values()))
    assert all(1 <= given[name] <= sizes[name] for name in sizes)
    for one in sizes:
        for other in sizes:
            if sizes[one] > sizes[other]:
                assert given[one] >= given[other] - 1, "a bigger stratum has no fewer seats, but for the remainder"


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        ("[", "expected a JSON file"),
        ("{}", "expected a JSON list"),
        ("[3]", "server 0: expected an object"),
        ('[{"description": "x"}]', "server 0, name: field required"),
        ('[{"name": "a"}, {"name": "b", "stars": "many"}]', "server 1, stars: input should be a valid integer"),
        ('[{"name": "a", "tags": [1]}]', r"server 0, tags\.0: input should be a valid string"),
        ('[{"name": "a", "requires_key": "no"}]', "server 0, requires_key: input should be a valid boolean"),
    ],
)
def test_a_broken_listing_is_one_sentence(tmp_path: Path, listing: str, said: str) -> None:
    (tmp_path / "l.json").write_text(listing)
    with pytest.raises(UserError, match=said):
        load(tmp_path / "l.json")


@needs_encoder
def test_the_command_writes_what_it_chose_and_why_not(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"servers": listing(60)}))
    done = CliRunner().invoke(
        app, ["select", str(tmp_path / "l.json"), "--count", "12", "-o", str(tmp_path / "c.json")]
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "c.json").read_text())
    assert len(report["chosen"]) == 12
    assert len(report["dropped"]) == 48
    assert "12 chosen, 48 dropped" in done.output

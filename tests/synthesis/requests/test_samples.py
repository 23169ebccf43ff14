"""Drafts become positives, or are rejected with a reason."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes import POLICIES, TOOLS, FakeAuthor, FakeServers

from synthesis.authors.base import Draft
from synthesis.calls.primitives import collect
from synthesis.journal import Journal
from synthesis.records import CriticalParameter, Distractor, Primitive, Sample, Step, Tool, Trajectory
from synthesis.requests.samples import RejectedSample, _write, compose
from synthesis.trajectories.execute import RejectedTrajectory, generate


def test_drafts_that_leave_something_unsaid_or_repeat_are_rejected(tmp_path: Path) -> None:
    class Silent(FakeAuthor):
        def compose(self, trajectory, tools, variant, seed):  # type: ignore[no-untyped-def]
            draft = super().compose(trajectory, tools, 0, seed)
            return draft.model_copy(update={"critical": [], "request": "Do the usual."}) if variant > 1 else draft

    rejected = Journal(tmp_path / "r", RejectedSample)
    primitives = Journal(tmp_path / "p", Primitive)
    asyncio.run(collect([FakeServers()], POLICIES, FakeAuthor(), primitives, per_tool=12, seed=0))
    accepted, unused = Journal(tmp_path / "t", Trajectory), Journal(tmp_path / "tr", RejectedTrajectory)
    made = asyncio.run(generate([FakeServers()], POLICIES, primitives, accepted, unused, count=10, seed=0))
    samples = compose(made, TOOLS, Silent(), Journal(tmp_path / "s", Sample), rejected, count=40, seed=0)
    assert len(samples) == 10
    reasons = Counter(r.reason.split(":")[0] for r in rejected)
    assert reasons["duplicate"] == 10
    assert reasons["unsaid"] == 60


BOOKING = Trajectory(
    id="t",
    pattern="single",
    steps=[
        Step(turn=0, tool="s__book", arguments={"city": "Oslo", "day": "2026-01-19"}, result="ok", primitive_id="p")
    ],
)
BOOK = Tool(server="s", name="book", input_schema={"type": "object", "properties": {"city": {}, "day": {}}})


def _written(request: str, day: str, **more: Any) -> Sample | RejectedSample:
    """What becomes of a draft whose author says that the day comes from the words `day`."""
    claims = [("city", "Oslo", "Oslo"), ("day", "2026-01-19", day)]
    critical = [CriticalParameter(step=0, parameter=p, value=v, evidence=words) for p, v, words in claims]
    draft = Draft(request=request, response="Done.", style="plain", critical=critical, intentions=[], **more)
    author = FakeAuthor()
    author.compose = lambda *_: draft  # type: ignore[method-assign]
    return _write(BOOKING, {"s__book": BOOK}, author, 0, 0)


@pytest.mark.parametrize("day", ["25 May 2030", "soon"])
def test_a_date_that_the_request_does_not_say_is_unsaid_whatever_the_author_claims(day: str) -> None:
    made = _written(f"Book me a table in Oslo on {day}, please.", day)
    assert isinstance(made, RejectedSample)
    assert made.reason == "unsaid: step 0, s__book.day = '2026-01-19'"
    assert isinstance(_written("Book me a table in Oslo on 19 January, please.", "19 January"), Sample)


@pytest.mark.parametrize(("evidence", "kept"), [("please", False), ("not Rome", True)])
def test_a_value_that_is_ruled_out_stands_in_the_words_that_do(evidence: str, kept: bool) -> None:
    wrong = Distractor(step=0, parameter="city", value="Rome", evidence=evidence)
    request = "Book me a table in Oslo, not Rome, on 19 January, please."
    made = _written(request, "19 January", distractors=[wrong], difficulty=["ruled_out"])
    assert isinstance(made, Sample) == kept

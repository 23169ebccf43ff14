"""Drafts become positives, or are rejected with a reason."""

import asyncio
from collections import Counter
from pathlib import Path

from fakes import POLICIES, TOOLS, FakeAuthor, FakeServers

from synthesis.calls.primitives import collect
from synthesis.journal import Journal
from synthesis.records import Primitive, Sample, Trajectory
from synthesis.requests.samples import RejectedSample, compose
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

"""A small world made by scripted servers and a scripted author, for all tests of datasets."""

import asyncio

import pytest
from fakes import POLICIES, TOOLS, FakeAuthor, FakeServers

from synthesis.calls.primitives import collect
from synthesis.dataset.source import Source
from synthesis.journal import Journal
from synthesis.negatives.negate import negate
from synthesis.records import Primitive, Sample, Trajectory
from synthesis.requests.samples import RejectedSample, compose
from synthesis.trajectories.execute import RejectedTrajectory, generate


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder, servers, author = tmp_path_factory.mktemp("world"), FakeServers(), FakeAuthor()
    primitives = Journal(folder / "p.jsonl", Primitive)
    asyncio.run(collect([servers], POLICIES, author, primitives, per_tool=12, seed=0))
    accepted, rejected = Journal(folder / "t", Trajectory), Journal(folder / "tr", RejectedTrajectory)
    made = asyncio.run(generate([servers], POLICIES, primitives, accepted, rejected, count=60, seed=0))
    written = Journal(folder / "s", Sample)
    samples = compose(made, TOOLS, author, written, Journal(folder / "sr", RejectedSample), count=120, seed=0)
    by_id = {trajectory.id: trajectory for trajectory in made}
    negatives = negate(samples, by_id, TOOLS, author, count=4, seed=0)
    return Source(dict(sorted(TOOLS.items())), by_id, samples, negatives)

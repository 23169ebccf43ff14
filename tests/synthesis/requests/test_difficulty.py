"""Hard requests: values ruled out and corrected, labels, and what the consistency rules refuse."""

from pathlib import Path

import pytest
from authoring import CONDITIONAL, PARALLEL, SEQUENTIAL, SINGLE, TOOLS, TRAJECTORIES, make_author

from synthesis.authors.base import Author, Draft
from synthesis.authors.offline.author import OfflineAuthor
from synthesis.journal import Journal
from synthesis.records import CriticalParameter, Distractor, Sample, Trajectory
from synthesis.requests.critical import ground
from synthesis.requests.difficulty import detected
from synthesis.requests.samples import RejectedSample, compose
from synthesis.text.equality import same_meaning
from synthesis.text.evidence import supported


@pytest.fixture
def author(tmp_path: Path) -> OfflineAuthor:
    return make_author(tmp_path)


def _hard(author: OfflineAuthor, trajectory: Trajectory) -> list[Draft]:
    drafts = [author.compose(trajectory, TOOLS, variant, seed) for seed in range(40) for variant in (1, 3)]
    return [draft for draft in drafts if draft.distractors]


@pytest.mark.parametrize("trajectory", TRAJECTORIES, ids=lambda t: t.pattern)
def test_a_wrong_value_is_said_and_the_right_one_is_still_proven(author: OfflineAuthor, trajectory: Trajectory) -> None:
    drafts = _hard(author, trajectory)
    assert {label for draft in drafts for label in draft.difficulty} == {"ruled_out", "correction"}
    for draft in drafts:
        (distractor,) = draft.distractors
        right = trajectory.steps[distractor.step].arguments[distractor.parameter]
        assert not same_meaning(right, distractor.value)
        assert type(right) is type(distractor.value)
        assert supported(distractor.value, distractor.evidence), draft.request
        assert distractor.evidence in draft.request
        (claim,) = [c for c in draft.critical if (c.step, c.parameter) == (distractor.step, distractor.parameter)]
        assert not supported(distractor.value, claim.evidence)
        assert all(p.by_rule for p in ground(trajectory, draft, TOOLS) if p.parameter == distractor.parameter)
        assert all(words.casefold() in draft.request.casefold() for words in draft.intentions)
        assert len(draft.intentions) == len(trajectory.steps)


def test_the_first_request_is_plain_and_plain_ones_are_most(author: OfflineAuthor) -> None:
    drafts = [author.compose(t, TOOLS, v, seed) for t in TRAJECTORIES for v in range(2) for seed in range(30)]
    assert not any(author.compose(t, TOOLS, 0, seed).distractors for t in TRAJECTORIES for seed in range(30))
    share = sum(bool(draft.distractors) for draft in drafts) / len(drafts)
    assert 0.15 < share < 0.35


def test_a_value_is_never_ruled_out_where_another_part_of_the_request_needs_it(author: OfflineAuthor) -> None:
    needed = {PARALLEL.id: {"Anna Weber", "Clara Novak"}, CONDITIONAL.id: {"Ben Costa", "Anna Weber", "Lima", "Cairo"}}
    for trajectory in (PARALLEL, CONDITIONAL):
        values = {draft.distractors[0].value for draft in _hard(author, trajectory)}
        assert values
        assert not values & needed[trajectory.id]


def _claims(trajectory: Trajectory) -> list[CriticalParameter]:
    return [
        CriticalParameter(step=i, parameter=p, value=v)
        for i, step in enumerate(trajectory.steps)
        for p, v in step.arguments.items()
    ]


def test_labels_that_the_calls_show() -> None:
    assert detected(SINGLE, _claims(SINGLE)) == []
    assert detected(SEQUENTIAL, _claims(SEQUENTIAL)) == ["reference"]
    step = SINGLE.steps[0].model_copy(update={"arguments": {"since": "2026-01-19", "until": "2026-01-20"}})
    two_days = SINGLE.model_copy(update={"steps": [step]})
    assert detected(two_days, _claims(two_days)) == ["same_type"]
    same_day = SINGLE.model_copy(
        update={"steps": [step.model_copy(update={"arguments": {"since": "2026-01-19", "until": "2026-01-19"}})]}
    )
    assert detected(same_day, _claims(same_day)) == []


class _Altered(OfflineAuthor):
    """The author, with something about each draft changed."""

    def __init__(self, author: OfflineAuthor, changes: dict[str, object], objection: str = "") -> None:
        self.author, self.changes, self.says = author, changes, objection

    def compose(self, trajectory: Trajectory, tools: object, variant: int, seed: int) -> Draft:
        return self.author.compose(trajectory, TOOLS, 0, seed).model_copy(update=self.changes)

    def objection(self, trajectory: Trajectory, draft: Draft, tools: object) -> str:
        return self.says


def _reason(author: Author, folder: Path) -> str:
    accepted, rejected = Journal(folder / "s.jsonl", Sample), Journal(folder / "r.jsonl", RejectedSample)
    with accepted, rejected:
        compose([SINGLE], TOOLS, author, accepted, rejected, count=1, seed=0)
        return next(iter(rejected)).reason if len(list(rejected)) else ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"intentions": ["cook dinner"]}, "intention: step 0: the request does not say 'cook dinner'"),
        ({"intentions": ["find", "find"]}, "intention: 2 sub-intentions for 1 steps"),
        ({"critical": [], "request": "Hello there"}, "unsaid: step 0, shop__find_orders.customer = 'Ben Costa'"),
        (
            {"distractors": [Distractor(step=0, parameter="customer", value="ben costa", evidence="Ben Costa")]},
            "distractor: step 0, customer: 'ben costa' is the value that the call takes",
        ),
        (
            {"distractors": [Distractor(step=0, parameter="customer", value="Anna Weber", evidence="not Anna")]},
            "distractor: step 0, customer: the request does not say 'not Anna'",
        ),
        (
            {"distractors": [Distractor(step=0, parameter="city", value="Rome", evidence="")]},
            "distractor: step 0, city: the call has no such argument",
        ),
    ],
)
def test_disagreement_is_kept_with_its_reason(
    author: OfflineAuthor, tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    assert _reason(_Altered(author, changes), tmp_path) == expected


def test_an_authors_objection_is_kept_too(author: OfflineAuthor, tmp_path: Path) -> None:
    assert _reason(_Altered(author, {}, "it asks for a refund"), tmp_path) == "it asks for a refund"


def test_samples_carry_labels_distractors_and_intentions(author: OfflineAuthor, tmp_path: Path) -> None:
    accepted, rejected = Journal(tmp_path / "s.jsonl", Sample), Journal(tmp_path / "r.jsonl", RejectedSample)
    with accepted, rejected:
        made = compose(TRAJECTORIES, TOOLS, author, accepted, rejected, count=24, seed=5)
    assert all(sample.intentions for sample in made)
    assert {label for s in made for label in s.difficulty} >= {"reference", "ruled_out", "correction"}
    assert all(bool(s.distractors) == bool({"ruled_out", "correction"} & set(s.difficulty)) for s in made)

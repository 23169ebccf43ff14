"""Positives and negatives: trajectories put into words, their critical parameters found, and deviating turns made."""

from collections.abc import Mapping, Sequence

from synthesis.authors.base import Author, Draft
from synthesis.dataset import normal
from synthesis.difficulty import detected, distractor_fault
from synthesis.journal import Journal
from synthesis.primitives import Progress
from synthesis.records import Negative, Record, Sample, Tool, Trajectory
from synthesis.seeds import digest

VARIANTS = 8
"""At most this many requests for one trajectory; the first two are tried for all before a third for any."""


class RejectedSample(Record):
    """A draft that did not become a positive, and why."""

    id: str
    trajectory_id: str
    variant: int
    request: str
    reason: str


def compose(
    trajectories: Sequence[Trajectory],
    tools: dict[str, Tool],
    author: Author,
    accepted: Journal[Sample],
    rejected: Journal[RejectedSample],
    *,
    count: int,
    seed: int,
    progress: Progress = lambda done, total, what: None,
) -> list[Sample]:
    """Ask the author for requests until there are `count` positives; fewer come back when he has no more to say.

    A sample's id is known before it is written (trajectory and variant), so no request is asked for twice. A draft is
    rejected when another positive has the same request, or when it leaves unsaid what the calls need.
    """
    done: list[Sample] = []
    requests: set[str] = set()
    for variant in range(VARIANTS):
        for trajectory in trajectories:
            if len(done) >= count:
                return done
            key = digest("sample", trajectory.id, variant)
            sample = accepted.get(key)
            if sample is None and key not in rejected:
                sample = _write(trajectory, tools, author, variant, seed, requests, accepted, rejected)
            if sample is not None:
                requests.add(normal(sample.request))
                done.append(sample)
            progress(len(done), count, trajectory.pattern)
    return done


def _write(
    trajectory: Trajectory,
    tools: dict[str, Tool],
    author: Author,
    variant: int,
    seed: int,
    requests: set[str],
    accepted: Journal[Sample],
    rejected: Journal[RejectedSample],
) -> Sample | None:
    from synthesis.critical import agreed, ground

    draft = author.compose(trajectory, tools, variant, seed)
    key = digest("sample", trajectory.id, variant)
    critical = ground(trajectory, draft, tools)
    sample = Sample(
        id=key,
        trajectory_id=trajectory.id,
        pattern=trajectory.pattern,
        style=draft.style,
        request=draft.request,
        response=draft.response,
        critical=critical,
        difficulty=sorted({*draft.difficulty, *detected(trajectory, agreed(critical))}),
        distractors=draft.distractors,
        intentions=draft.intentions,
    )
    reason = "duplicate: another positive has this request" if normal(draft.request) in requests else ""
    reason = reason or _inconsistency(trajectory, sample, draft) or author.objection(trajectory, draft, tools)
    if reason:
        rejected.append(
            RejectedSample(id=key, trajectory_id=trajectory.id, variant=variant, request=draft.request, reason=reason)
        )
        return None
    accepted.append(sample)
    return sample


def _inconsistency(trajectory: Trajectory, sample: Sample, draft: Draft) -> str:
    """Where the request and the calls disagree; empty when they do not.

    An argument comes from an earlier result (an edge) or from the request (a critical parameter that the author or the
    rule vouches for). Anything else the model could only guess. Sub-intentions, if the author names them, are one a
    step, in words of the request; a ruled-out value is said there, and no call takes it.
    """
    if not draft.request.strip():
        return "empty: the author wrote nothing"
    sourced = {(edge.target, edge.parameter) for edge in trajectory.edges}
    sourced |= {(p.step, p.parameter) for p in sample.critical if p.by_author or p.by_rule}
    for index, step in enumerate(trajectory.steps):
        for parameter, value in step.arguments.items():
            if (index, parameter) not in sourced:
                return f"unsaid: step {index}, {step.tool}.{parameter} = {value!r}"
    return _intention_fault(trajectory, draft) or distractor_fault(trajectory, draft.distractors, draft.request)


def _intention_fault(trajectory: Trajectory, draft: Draft) -> str:
    if draft.intentions and len(draft.intentions) != len(trajectory.steps):
        return f"intention: {len(draft.intentions)} sub-intentions for {len(trajectory.steps)} steps"
    for index, words in enumerate(draft.intentions):
        if not words.strip() or words.casefold() not in draft.request.casefold():
            return f"intention: step {index}: the request does not say {words!r}"
    return ""


def negate(
    samples: Sequence[Sample],
    trajectories: Mapping[str, Trajectory],
    tools: dict[str, Tool],
    author: Author,
    journal: Journal[Negative],
    *,
    count: int,
    seed: int,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, list[Negative]]:
    """Make at most `count` negatives for each decision turn of each sample, by sample id.

    Negatives are a pure function of the sample, so a resumed run makes them again and writes only the missing ones.
    """
    from synthesis.mutations import negatives

    made: dict[str, list[Negative]] = {}
    for number, sample in enumerate(samples, start=1):
        found = negatives(sample, trajectories[sample.trajectory_id], tools, author, count, seed)
        for negative in found:
            if negative.id not in journal:
                journal.append(negative)
        made[sample.id] = found
        progress(number, len(samples), sample.pattern)
    return made

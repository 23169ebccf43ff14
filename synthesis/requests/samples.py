"""Positives: trajectories put into words, and their critical parameters found."""

from collections.abc import Sequence

from synthesis.authors.base import Author, AuthorError, Draft
from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.progress import Progress, silent
from synthesis.records import Json, Record, Sample, Tool, Trajectory
from synthesis.requests.critical import agreed, ground
from synthesis.requests.difficulty import detected, distractor_fault
from synthesis.run import Run
from synthesis.seeds import digest
from synthesis.surprises import surprise
from synthesis.text.equality import request_key
from synthesis.text.kinds import kind_of
from synthesis.workers import ahead

VARIANTS = 8
"""At most this many requests for one trajectory; the first two are tried for all before a third for any."""


class RejectedSample(Record):
    """A draft that did not become a positive, and why."""

    id: str
    trajectory_id: str
    variant: int
    request: str
    reason: str


async def samples_stage(run: Run) -> None:
    """Have the trajectories put into words until there are as many positives as wanted."""
    if not run.trajectories:
        raise UserError(f"{run.folder / 'primitives.jsonl'}: no call succeeded, so there is nothing to learn from.")
    accepted, rejected = run.journal("samples", Sample), run.journal("samples_rejected", RejectedSample)
    count, seed = run.config.positives, run.config.seed
    with run.stage("samples") as progress:
        run.samples = await run.aside(
            lambda: compose(
                run.trajectories, run.tools, run.author, accepted, rejected, count=count, seed=seed, progress=progress
            )
        )


def compose(
    trajectories: Sequence[Trajectory],
    tools: dict[str, Tool],
    author: Author,
    accepted: Journal[Sample],
    rejected: Journal[RejectedSample],
    *,
    count: int,
    seed: int,
    progress: Progress = silent,
) -> list[Sample]:
    """Ask the author for requests until there are `count` positives; fewer come back when he has no more to say.

    A sample's id is known before it is written (trajectory and variant), so no request is asked for twice. A draft is
    rejected when another positive has the same request, or when it leaves unsaid what the calls need. An author with
    several workers writes ahead, never more than is still wanted, and is judged in order.
    """
    done: list[Sample] = []
    requests: set[str] = set()

    def write(item: tuple[int, Trajectory]) -> Sample | RejectedSample:
        variant, trajectory = item
        key = digest("sample", trajectory.id, variant)
        return accepted.get(key) or rejected.get(key) or _write(trajectory, tools, author, variant, seed)

    turns = ((variant, trajectory) for variant in range(VARIANTS) for trajectory in trajectories)
    for (variant, trajectory), written in ahead(write, turns, author.workers, lambda: count - len(done)):
        made = _distinct(written, variant, requests)
        if isinstance(made, Sample):
            requests.add(request_key(made.request))
            done.append(made)
            if made.id not in accepted:
                accepted.append(made)
        elif made.id not in rejected:
            rejected.append(made)
        progress(len(done), count, trajectory.pattern)
    return done


def _distinct(written: Sample | RejectedSample, variant: int, requests: set[str]) -> Sample | RejectedSample:
    """What was written, or its rejection where another positive has the same request."""
    if isinstance(written, RejectedSample) or request_key(written.request) not in requests:
        return written
    return _rejection(written.trajectory_id, variant, written.request, "duplicate: another positive has this request")


def _rejection(trajectory_id: str, variant: int, request: str, reason: str) -> RejectedSample:
    key = digest("sample", trajectory_id, variant)
    return RejectedSample(id=key, trajectory_id=trajectory_id, variant=variant, request=request, reason=reason)


def _write(
    trajectory: Trajectory, tools: dict[str, Tool], author: Author, variant: int, seed: int
) -> Sample | RejectedSample:
    try:
        draft = author.compose(trajectory, tools, variant, seed)
        critical = ground(trajectory, draft, tools)
        sample = Sample(
            id=digest("sample", trajectory.id, variant),
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
        reason = _inconsistency(trajectory, sample, draft) or author.objection(trajectory, draft, tools)
    except AuthorError as error:
        return _rejection(trajectory.id, variant, "", f"author: {error}")
    except Exception as error:
        return _rejection(trajectory.id, variant, "", surprise(error))
    return _rejection(trajectory.id, variant, draft.request, reason) if reason else sample


def _inconsistency(trajectory: Trajectory, sample: Sample, draft: Draft) -> str:
    """Where the request and the calls disagree; empty when they do not.

    An argument comes from an earlier result (an edge) or from the request (a critical parameter that the author or the
    rule vouches for). Anything else the model could only guess. Sub-intentions, if the author names them, are one a
    step, in words of the request; a ruled-out value is said there, and no call takes it.
    """
    if not draft.request.strip():
        return "empty: the author wrote nothing"
    sourced = {(edge.target, edge.parameter) for edge in trajectory.edges}
    said = [p for p in sample.critical if p.by_rule or (p.by_author and _paraphrased(p.value))]
    sourced |= {(parameter.step, parameter.parameter) for parameter in said}
    for index, step in enumerate(trajectory.steps):
        for parameter, value in step.arguments.items():
            if (index, parameter) not in sourced:
                return f"unsaid: step {index}, {step.tool}.{parameter} = {value!r}"
    return _intention_fault(trajectory, draft) or distractor_fault(trajectory, draft.distractors, draft.request)


def _paraphrased(value: Json) -> bool:
    """Whether a user may say a value in words of their own, so that the author's word is enough for it.

    Words, choices and lists may be; a date, a number, a path and the like stand in the request or are not in it.
    """
    return kind_of(value) in ("boolean", "name", "text", "list", "object", "null")


def _intention_fault(trajectory: Trajectory, draft: Draft) -> str:
    if draft.intentions and len(draft.intentions) != len(trajectory.steps):
        return f"intention: {len(draft.intentions)} sub-intentions for {len(trajectory.steps)} steps"
    for index, words in enumerate(draft.intentions):
        if not words.strip() or words.casefold() not in draft.request.casefold():
            return f"intention: step {index}: the request does not say {words!r}"
    return ""

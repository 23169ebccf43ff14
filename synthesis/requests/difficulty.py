"""What makes a request hard, as labels on a sample, so that a hard split can be drawn (RISE, section 3.2.3; ours).

An author who writes a ruled-out value or a correction says so in the draft. What shows in the calls is found here, for
every author alike.
"""

from collections.abc import Sequence

from synthesis.records import CriticalParameter, Difficulty, Distractor, Trajectory
from synthesis.text.equality import normal_form, same_meaning
from synthesis.text.evidence import supported
from synthesis.text.kinds import Kind, kind_of

_TOO_LOOSE: frozenset[Kind] = frozenset({"boolean", "null", "list", "object", "text"})


def detected(trajectory: Trajectory, critical: Sequence[CriticalParameter]) -> list[Difficulty]:
    """Return the labels that the calls show: `same_type` and `reference`.

    `same_type`: one call takes two different values of one kind (two dates, two cells, two numbers) from the request.
    `reference`: an argument comes from an earlier result.
    """
    found: list[Difficulty] = ["reference"] if trajectory.edges else []
    kinds: dict[tuple[int, Kind], set[str]] = {}
    for parameter in critical:
        kinds.setdefault((parameter.step, kind_of(parameter.value)), set()).add(normal_form(parameter.value))
    if any(len(values) > 1 and kind not in _TOO_LOOSE for (_, kind), values in kinds.items()):
        found.append("same_type")
    return found


def distractor_fault(trajectory: Trajectory, distractors: Sequence[Distractor], request: str) -> str:
    """Say what is wrong with the values that a request is said to rule out; an empty string where nothing is.

    Each must be mentioned where the author says so, and must not be what any call of that parameter's step takes.
    """
    for distractor in distractors:
        place = f"step {distractor.step}, {distractor.parameter}"
        arguments = trajectory.steps[distractor.step].arguments if distractor.step < len(trajectory.steps) else {}
        if distractor.parameter not in arguments:
            return f"distractor: {place}: the call has no such argument"
        if same_meaning(distractor.value, arguments[distractor.parameter]):
            return f"distractor: {place}: {distractor.value!r} is the value that the call takes"
        if not distractor.evidence or distractor.evidence.casefold() not in request.casefold():
            return f"distractor: {place}: the request does not say {distractor.evidence!r}"
        if not supported(distractor.value, distractor.evidence):
            return f"distractor: {place}: {distractor.evidence!r} does not say {distractor.value!r}"
    return ""

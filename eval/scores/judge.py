"""Quality of data by a judge (RISE, section 4.2): a language model scores each example from 1 to 5.

The paper's judge is GPT-4o and its prompt is not known, so the rubric's wording is ours. Three of the counts a rule can
tell as well; how far judge and rule agree on the same examples says what the other counts of this judge are worth.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from eval.scores.quality import JUDGED, Example, counts_of
from eval.scores.stats import ratio_interval
from synthesis.errors import UserError
from synthesis.llm.client import Answer, AnswerError, Client, Endpoint, Prompt, open_client
from synthesis.llm.fencing import cleaned, fence
from synthesis.llm.prompt_files import filled, version
from synthesis.records import Json
from synthesis.text.visible import shortened

FOLDER = Path(__file__).parent / "prompts"
BOTH = ("name_validity", "value_validity", "value_consistency")
"""Counts that rule and judge both tell."""
RESPONSE = "response_correctness"
COUNTS = (*JUDGED, *BOTH)
GOOD = 4
"""A score from which on the judge is taken to find no fault, when it is compared with a rule or a person."""
TEXT_CHARS, DESCRIPTION_CHARS, OTHERS = 600, 300, 20
"""Longest request, result or response; longest description; tools that are named without having been called."""

Likert = Literal[1, 2, 3, 4, 5]


class Scores(Answer):
    """What the judge says of an example without a response."""

    fault: str
    naturalness: Likert
    tool_relevance: Likert
    chain_coherence: Likert
    name_validity: Likert
    value_validity: Likert
    value_consistency: Likert


class AllScores(Scores):
    """What the judge says of an example with a response."""

    response_correctness: Likert


@dataclass(frozen=True)
class Judge:
    """A model that judges, asked through `client`; answers are kept, so none is paid twice."""

    client: Client

    def scores(self, examples: Sequence[Example], progress: Callable[[int], None]) -> list[dict[str, int] | None]:
        """The scores of each example by count; None where the model gave no usable answer.

        Raises:
            UserError: the endpoint cannot be used; what it answered so far is kept.
        """

        def one(example: Example) -> dict[str, int] | None:
            kind = Scores if example.response is None else AllScores
            try:
                found = self.client.ask_in_room(partial(_question, example), kind, 0)
            except AnswerError:
                return None
            return {name: score for name, score in found.model_dump().items() if name != "fault"}

        found = []
        with ThreadPoolExecutor(self.client.endpoint.workers) as pool:
            for scores in pool.map(one, examples):
                found.append(scores)
                progress(1)
        return found

    def engine(self) -> dict[str, Json]:
        """Which model judged, and by which wording."""
        endpoint = self.client.endpoint
        return {"judge": endpoint.model, "url": endpoint.base_url, "prompt": version(FOLDER, "judge")}


def open_judge(name: str, folder: Path, files: ExitStack) -> Judge:
    """The judge `URL#MODEL`, asked greedily; answers and costs are kept in `folder`, and `files` closes them.

    The key comes from OPENAI_API_KEY; local servers want none.

    Raises:
        UserError: no such address.
    """
    url, _, model = name.partition("#")
    if not url.startswith(("http://", "https://")) or not model:
        raise UserError(f"--judge {name}: expected URL#MODEL, as in http://localhost:8000/v1#my-model")
    endpoint = Endpoint(model, url, max_tokens=400, temperature=0.0, option=f"--judge {name}")
    endpoint.check()
    return Judge(open_client(endpoint, folder, folder / "rejected.jsonl", files))


def rates(scored: Sequence[dict[str, int] | None], seed: int = 0) -> dict[str, dict[str, float]]:
    """Each count over the judged examples: value, low, high, n, and `fifths`.

    `value` maps 1 to 5 on 0 to 1 by (score - 1) / 4, with its bootstrap interval over examples; `fifths` is the mean of
    score / 5. The paper does not say which of the two its figure 3 shows.
    """
    found = {}
    for count in COUNTS:
        given = [scores[count] for scores in scored if scores and count in scores]
        cells = np.array([(score - 1, 4) for score in given], dtype=np.float64).reshape(-1, 2)
        low, high = ratio_interval(cells, seed)
        mean = sum(given) / len(given) if given else 0.0
        value = (mean - 1) / 4 if given else 0.0
        found[f"{count}.judge"] = {"value": value, "low": low, "high": high, "n": len(given), "fifths": mean / 5}
    return found


def agreement(examples: Sequence[Example], scored: Sequence[dict[str, int] | None]) -> dict[str, dict[str, Json]]:
    """How far the judge agrees with the rules and, for the response, with people: share, kappa, n.

    Both sides say of each example whether it is without fault: the judge by a score of 4 or more, a rule where all of
    the example's values or calls keep it. `kappa` is Cohen's, the agreement beyond chance; None where chance explains
    all of it.
    """
    pairs: dict[str, list[tuple[bool, bool]]] = {count: [] for count in (*BOTH, RESPONSE)}
    for example, scores in zip(examples, scored, strict=True):
        if scores is None:
            continue
        counts = counts_of(example)
        for count in BOTH:
            hits, total = counts[count]
            if total:
                pairs[count].append((scores[count] >= GOOD, hits == total))
        if example.solved is not None and RESPONSE in scores:
            pairs[RESPONSE].append((scores[RESPONSE] >= GOOD, example.solved))
    return {count: _agreed(found) for count, found in pairs.items() if found}


def _agreed(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Json]:
    n = len(pairs)
    share = sum(judge == other for judge, other in pairs) / n
    judge, other = (sum(column) / n for column in zip(*pairs, strict=True))
    chance = judge * other + (1 - judge) * (1 - other)
    return {"share": share, "kappa": (share - chance) / (1 - chance) if chance < 1 else None, "n": n}


def _question(example: Example, room: int) -> Prompt:
    called = {call.name for call in example.calls}
    specs = {str(tool["function"]["name"]): tool["function"] for tool in example.tools}
    limit = TEXT_CHARS // room
    tools: dict[str, Json] = {
        "called": [
            {
                "name": name,
                "description": shortened(str(spec.get("description", "")), DESCRIPTION_CHARS // room),
                "parameters": cleaned(spec.get("parameters", {}), DESCRIPTION_CHARS // room),
            }
            for name, spec in specs.items()
            if name in called
        ],
        "not called": [name for name in specs if name not in called][: OTHERS // room],
    }
    results = [*example.results, *[""] * len(example.calls)]
    calls = [
        {"tool": call.name, "arguments": cleaned(call.arguments, limit)}
        | ({"result": shortened(result, limit)} if result else {})
        for call, result in zip(example.calls, results, strict=False)
    ]
    return filled(
        FOLDER,
        "judge",
        "quality",
        request=fence("request", shortened(example.request, 4 * limit)),
        tools=fence("tools", tools),
        calls=fence("calls", calls),
        response="" if example.response is None else fence("response", shortened(example.response, 2 * limit)),
    )


def quality_of(
    examples: Sequence[Example], judge: Judge, progress: Callable[[int], None], seed: int = 0
) -> dict[str, Json]:
    """What the judge says of a dataset: its `metrics`, its `agreement`, and how many examples it left `unjudged`."""
    scored = judge.scores(examples, progress)
    return {
        "metrics": rates(scored, seed),
        "agreement": agreement(examples, scored),
        "unjudged": sum(scores is None for scores in scored),
    }

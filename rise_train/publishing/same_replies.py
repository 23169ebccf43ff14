"""The proof that a published folder is the trained model: both answer the same prompts, in a clean process.

The replies must be equal token for token, and equally likely: a merge that never happened can leave greedy replies as
they were, but not their log-probabilities. Where a merge rounded the weights, a reply may differ; what the
original says must then be about as likely to the copy, and much nearer than it is without the adapter.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from eval.policies.adapters import misfit
from rise_train.publishing import clean_load
from rise_train.publishing.clean_load import Answer
from rise_train.publishing.model_files import Source
from synthesis.errors import UserError

EXACT, ROUNDED, SHARE = 1e-3, 0.02, 0.25
"""How far the log-probabilities of a token may lie apart: of any token where nothing was rounded; on average where the
weights were, by that much or by a share of what the adapter changes."""
TRIAL_TOOL = {
    "type": "function",
    "function": {
        "name": "weather__forecast",
        "description": "Weather of a city on a day.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "date": {"type": "string"}},
            "required": ["city", "date"],
        },
    },
}
TRIAL_REQUESTS = (
    "What will the weather be in Bern on 2025-03-14?",
    "Will it rain in Oslo on 2 April 2025?",
    "Tell me the forecast for Lisbon on 2025-05-21, please.",
)


def trial_prompts(dataset: Path | None) -> list[dict[str, Any]]:
    """Three prompts: the first turns of test tasks if there is a dataset, else three about the weather."""
    if dataset is None:
        return [{"messages": [{"role": "user", "content": text}], "tools": [TRIAL_TOOL]} for text in TRIAL_REQUESTS]
    from eval.rollouts.decisions import load_tasks

    tasks = load_tasks(dataset, "test", limit=3)
    return [{"messages": t.decisions[0].prompt.messages, "tools": t.decisions[0].prompt.tools} for t in tasks]


class Proof(NamedTuple):
    """What the copy says to the prompts, and what was found."""

    examples: list[dict[str, Any]]
    """The prompts with "reply" (text, special tokens included) and "reply_ids"."""
    line: str
    """For people."""


def prove_same(found: Source, copy: Path, prompts: list[dict[str, Any]]) -> Proof:
    """Ask the original and its copy, one after the other, in a clean process.

    Of a merged copy the original is the base with its adapter, so the proof is that of the sum.

    Raises:
        UserError: one of them can't be loaded, or the copy is another model.
    """
    from transformers import AutoTokenizer

    theirs, ours = _ask(found, copy, prompts)
    same = sum(mine["ids"] == other["ids"] for mine, other in zip(ours, theirs, strict=True))
    line = f"{same} of {len(prompts)} greedy replies equal the original's"
    rounded = _rounding(found, copy)
    if rounded:
        apart, moved = fmean(_gaps(theirs, ours, "log_probs")), fmean(_gaps(theirs, theirs, "bare"))
        right = apart <= max(ROUNDED, SHARE * moved)
        line += f"; rounded to {rounded}, it finds them as likely within {apart:.2g} a token (the adapter: {moved:.2g})"
    else:
        right = same == len(prompts) and max(_gaps(theirs, ours, "log_probs")) <= EXACT
    if not right:
        why = f", its weights being rounded to {rounded}; publish the adapter, without --merged" if rounded else ""
        raise UserError(f"{copy}: the copy gives other replies than {found.model}{why}; it is not published")
    tokenizer = AutoTokenizer.from_pretrained(str(copy))
    replies = [{"reply": tokenizer.decode(answer["ids"]), "reply_ids": answer["ids"]} for answer in ours]
    return Proof([{**prompt, **reply} for prompt, reply in zip(prompts, replies, strict=True)], line)


def _rounding(found: Source, copy: Path) -> str:
    """The type that a merged copy's weights were rounded to; empty where nothing was rounded."""
    if found.adapter is None or (copy / "adapter_config.json").is_file():
        return ""
    dtype = str(json.loads((copy / "config.json").read_text())["dtype"])
    return "" if dtype == "float32" else dtype


def _gaps(theirs: list[Answer], ours: list[Answer], key: Literal["log_probs", "bare"]) -> list[float]:
    """How far each token of the original's replies lies from the log-probability that `ours` has for it under `key`."""
    pairs = zip(theirs, ours, strict=True)
    return [abs(a - b) for one, other in pairs for a, b in zip(one["log_probs"], other[key], strict=True)]


def _ask(found: Source, copy: Path, prompts: list[dict[str, Any]]) -> list[list[Answer]]:
    """The answers of the original and of its copy: `clean_load` without this process' paths and without the network."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = [(str(model.absolute()), _absolute(found.base)) for model in (found.model, copy)]
        (folder / "questions.json").write_text(json.dumps({"models": models, "prompts": prompts}))
        script = str(Path(clean_load.__file__).absolute())
        command = [sys.executable, "-I", script, "questions.json", "answers.json"]
        env = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        told = folder / "answers.json"
        answers: list[list[Answer]] = json.loads(told.read_text()) if told.is_file() else []
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
            last = misfit(done.stderr) if "size mismatch" in done.stderr else last
            if not answers:
                raise UserError(f"{found.model}: does not load: {last}")
            raise UserError(f"{copy}: the copy does not load in a clean process: {last}")
        return answers


def _absolute(base: str | None) -> str | None:
    """A base's folder as it is found from anywhere; its Hub id as it is."""
    return str(Path(base).absolute()) if base is not None and Path(base).is_dir() else base

"""The proof that a published folder is the trained model: both answer the same prompts, the copy in a clean process.

The replies must be equal token for token, and equally likely: a merge that never happened can leave greedy replies as
they were, but not their log-probabilities.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rise_train.publishing import clean_load
from rise_train.publishing.model_files import Source
from synthesis.errors import UserError

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


def prove_same(found: Source, copy: Path, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Load the copy in a clean process and the original in this one; the replies, if they are the same.

    Of a merged copy the original is the base with its adapter, so the proof is that of the sum.

    Returns:
        The prompts with "reply" (text, special tokens included) and "reply_ids".

    Raises:
        UserError: one of them can't be loaded, or the replies differ.
    """
    from transformers import AutoTokenizer

    original, copied = _both(found, copy, prompts)
    rounded = _rounding(found, copy)
    likely = [[answer["log_prob"] for answer in answers] for answers in (original, copied)]
    replies = [[answer["ids"] for answer in answers] for answers in (original, copied)]
    if replies[0] != replies[1] or not _as_likely(likely[0], likely[1], 2e-2 if rounded else 1e-4):
        why = f", its weights being rounded to {rounded}; publish the adapter, without --merged" if rounded else ""
        raise UserError(f"{copy}: the copy gives other replies than {found.model}{why}; it is not published")
    tokenizer = AutoTokenizer.from_pretrained(str(copy))
    return [{**p, "reply": tokenizer.decode(ids), "reply_ids": ids} for p, ids in zip(prompts, replies[0], strict=True)]


def _as_likely(left: list[float], right: list[float], tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(left, right, strict=True))


def _rounding(found: Source, copy: Path) -> str:
    """The type that a merged copy's weights were rounded to; empty where nothing was rounded."""
    if found.adapter is None or (copy / "adapter_config.json").is_file():
        return ""
    dtype = str(json.loads((copy / "config.json").read_text())["dtype"])
    return "" if dtype == "float32" else dtype


def _both(found: Source, copy: Path, prompts: list[dict[str, Any]]) -> tuple[list[clean_load.Answer], ...]:
    """The answers of the original and of its copy, made at the same time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "prompts.json").write_text(json.dumps(prompts))
        process = _clean_process(copy, folder, found.base)
        try:
            original = clean_load.answer(str(found.model), prompts, found.base)
        except (OSError, ValueError) as error:
            process.kill()
            raise UserError(f"{found.model}: does not load: {' '.join(str(error).split())[:300]}") from error
        finally:
            _, errors = process.communicate()
        if process.returncode != 0:
            last = errors.strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"{copy}: the copy does not load in a clean process: {last[0][:300]}")
        return original, json.loads((folder / "replies.json").read_text())


def _clean_process(model: Path, folder: Path, base: str | None) -> "subprocess.Popen[str]":
    """`clean_load` isolated from this process' paths and from the network, in an empty working folder."""
    script, place = str(Path(clean_load.__file__).absolute()), str(model.absolute())
    command = [sys.executable, "-I", script, place, "prompts.json", "replies.json"]
    if base is not None:
        command.append(str(Path(base).absolute()) if Path(base).is_dir() else base)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

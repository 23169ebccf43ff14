"""Replies as they come, on disk: an evaluation that was stopped, or whose server died, goes on where it was.

The journal stands beside the result file and goes when that is written. A reply is filed under what it answered: the
model as its files are now, the prompt, and the longest reply allowed.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel

from eval.policies.adapters import base_of
from eval.policies.base import Policy, Progress, Prompt
from eval.replies.calls import Call, Reply
from synthesis.journal import Journal
from synthesis.seeds import digest


class Kept(BaseModel):
    """A reply as the journal keeps it: JSON in ASCII, since a model may write what UTF-8 cannot hold."""

    id: str
    reply: str


@contextmanager
def journal_beside(result: Path | None) -> Iterator[Journal[Kept] | None]:
    """The journal of the evaluation that writes `result`, removed when that went well; None without a result file."""
    if result is None:
        yield None
        return
    path = result.with_name(result.name + ".replies.jsonl")
    with Journal(path, Kept) as journal:
        yield journal
    path.unlink()


def replies_of(
    policy: Policy, prompts: Sequence[Prompt], longest: int, journal: Journal[Kept] | None, progress: Progress
) -> list[Reply]:
    """The policy's reply to each prompt; only those that the journal lacks are asked for."""
    if journal is None:
        return policy.reply(prompts, progress)
    model = identity(policy.name)
    keys = [digest(model, longest, prompt.messages, prompt.tools) for prompt in prompts]
    first = {key: at for at, key in reversed(list(enumerate(keys)))}
    asked = [at for key, at in sorted(first.items(), key=lambda item: item[1]) if key not in journal]
    progress(len(prompts) - len(asked))

    def keep(at: int, reply: Reply) -> None:
        journal.append(Kept(id=keys[asked[at]], reply=json.dumps(asdict(reply))))

    policy.reply([prompts[at] for at in asked], progress, keep)
    return [_read(journal, key) for key in keys]


def _read(journal: Journal[Kept], key: str) -> Reply:
    kept = journal.get(key)
    assert kept is not None, "every policy answers every prompt"
    reply = json.loads(kept.reply)
    return Reply(**{**reply, "calls": tuple(Call(**call) for call in reply["calls"])})


def identity(name: str) -> str:
    """What a model is: its name, and if that is a folder, size and time of each file in it, and in its base."""
    folders = [Path(name), Path(base_of(name))] if Path(name).is_dir() else []
    files = [file for folder in folders if folder.is_dir() for file in sorted(os.scandir(folder), key=_name)]
    return digest(name, [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()])


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name

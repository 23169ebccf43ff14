"""`rise mine`: of many negatives those that a given model finds likely, and the model's own wrong replies.

Most random mutations are unlikely under a model after SFT, and pairs that it tells apart already teach it little. The
answers of a group are scored by one packed pass over their trie (`rise_train.packing.trie`), the likeliest wrong ones
are kept, and the result is a dataset of the same form. Scores are journalled: killed and started again, the command
goes on.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eval.rollouts.decisions import level
from rise_train.mining.model_scores import OWN, Miner, Scores
from rise_train.models.fingerprint import hash_model
from rise_train.rows.recipe_rows import hash_data
from synthesis.dataset.reading import Stored, read
from synthesis.dataset.source import Row
from synthesis.dataset.writing import PREFERENCE, SFT, save
from synthesis.errors import UserError
from synthesis.journal import Journal
from synthesis.progress import stage
from synthesis.seeds import digest, seeded

MINED = "mined.json"
TOGETHER = 64
"""Groups that are decoded together; a killed run loses at most so many."""


@dataclass(frozen=True)
class Options:
    """What decides the result, beside model and data."""

    keep: int = 4
    """Negatives of a group at most."""
    own_replies: int = 0
    """How often each prompt is answered: once greedily, then at temperature 1; wrong answers join the pool."""
    limit: int | None = None
    """Mine only so many groups, a seeded sample, and leave the others out."""
    difficulty: str = "all"
    """Mine only requests that are "easy" or "hard" (`eval.rollouts.decisions.level`), and leave the others out."""
    split: str = "train"
    max_new_tokens: int = 256
    seed: int = 0


def mine(model: str, source: Path, output: Path, options: Options, batch_size: int = 32) -> dict[str, int]:
    """Write the dataset `output`: `source` with the likeliest negatives of each group in one split.

    Args:
        model: whose log-probabilities decide: a model folder, an adapter folder or a Hub id.
        source: a run of `rise synth`, or its dataset. Its other splits and its `sft` are taken over as they are.

    Returns:
        Counts: `groups`, `pool` (the negatives there were), `preferred` (those of them that the model finds likelier
        than the right answer), `negatives` (kept), `own_replies` among these, and `unusable`, wrong replies that no
        training could take.

    Raises:
        UserError: no such dataset, split or model, or an `output` that holds something else.
    """
    stored = read(source)
    if options.split not in stored.preference:
        there = ", ".join(sorted(stored.preference))
        raise UserError(f"{stored.folder}/preference: no split {options.split!r}; there are {there}")
    facts = {**asdict(options), "model_hash": hash_model(model)}
    facts["data_hash"] = hash_data(stored.folder, "preference", options.split)
    if (output / MINED).is_file() and (done := json.loads((output / MINED).read_text()))["facts"] == facts:
        return {name: int(count) for name, count in done["counts"].items()}
    if output.exists():
        raise UserError(f"{output}: holds something else already; give a new folder (-o)")
    partial = output.with_name(output.name + ".partial")
    rows = _sample(stored.preference[options.split], options)
    key = digest({name: value for name, value in facts.items() if name != "keep"})
    with Journal(partial / f"{key}.jsonl", Scores) as journal:
        _score(model, rows, journal, options, batch_size)
        chosen = [select(row, journal.get(row["meta"]["id"]), options.keep) for row in rows]
        counts = _count(journal, rows, chosen)
    _write(stored, {**stored.preference, options.split: chosen}, partial / "dataset", _note(model, options, counts))
    (partial / "dataset" / MINED).write_text(json.dumps({"facts": facts, "counts": counts}, indent=1) + "\n")
    os.replace(partial / "dataset", output)
    shutil.rmtree(partial)
    return counts


def _sample(rows: list[Row], options: Options) -> list[Row]:
    rows = [row for row in rows if options.difficulty in ("all", level(row["meta"]))]
    if not rows:
        raise UserError(f"difficulty: {options.split} has no request that is {options.difficulty}")
    if options.limit is None or options.limit >= len(rows):
        return rows
    return [rows[i] for i in sorted(seeded(options.seed, "mine").sample(range(len(rows)), options.limit))]


def _score(model: str, rows: Sequence[Row], journal: Journal[Scores], options: Options, batch_size: int) -> None:
    """Score the groups that the journal lacks, block by block, so that a resumed run decodes the same batches."""
    blocks = [rows[at : at + TOGETHER] for at in range(0, len(rows), TOGETHER)]
    waiting = [block for block in blocks if any(row["meta"]["id"] not in journal for row in block)]
    if not waiting:
        return
    miner = Miner(model, batch_size, options.max_new_tokens)
    with stage("mining") as report:
        for block in waiting:
            for scores in miner.judge(block, options.own_replies, options.seed):
                if scores.id not in journal:
                    journal.append(scores)
            report(len(journal), len(rows), "")


def select(row: Row, scores: Scores | None, keep: int) -> Row:
    """The group with its `keep` likeliest negatives, likeliest first; equal ones in their old order.

    Each negative's meta gets its `log_prob`, in nats, and the group's that of the right answer.
    """
    assert scores is not None, "every group is scored before it is cut"
    own = [reply.message() for reply in scores.own]
    facts = [
        *({**meta, "log_prob": p} for meta, p in zip(row["meta"]["negatives"], scores.rejected, strict=True)),
        *(reply.meta(scores.id) for reply in scores.own),
    ]
    rejected = [*row["rejected"], *([message] for message in own)]
    order = sorted(range(len(facts)), key=lambda k: -float(facts[k]["log_prob"]))[:keep]
    meta = {**row["meta"], "negatives": [facts[k] for k in order], "chosen_log_prob": scores.chosen}
    return {**row, "rejected": [rejected[k] for k in order], "meta": meta}


def _count(journal: Journal[Scores], rows: Sequence[Row], chosen: Sequence[Row]) -> dict[str, int]:
    kinds = [negative["kind"] for row in chosen for negative in row["meta"]["negatives"]]
    return {
        "groups": len(chosen),
        "pool": sum(len(row["rejected"]) for row in rows),
        "preferred": sum(score > scores.chosen for scores in journal for score in scores.rejected),
        "negatives": len(kinds),
        "own_replies": kinds.count(OWN),
        "unusable": sum(scores.unusable for scores in journal),
    }


def _write(stored: Stored, preference: dict[str, list[Row]], folder: Path, note: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    save(stored.sft, SFT, folder / "sft")
    save(preference, PREFERENCE, folder / "preference")
    card = stored.folder / "README.md"
    before = card.read_text(encoding="utf-8") if card.is_file() else "# Tool calls as the user meant them\n"
    (folder / "README.md").write_text(f"{before}\n## Mined\n\n{note}\n", encoding="utf-8")


def _note(model: str, options: Options, counts: dict[str, int]) -> str:
    name, kept = Path(model).name, f"{counts['negatives']} in {counts['groups']} groups"
    asked = f" It was asked {options.own_replies} times for a reply to each prompt;" if options.own_replies else ""
    own = f"{asked} {counts['own_replies']} of its wrong replies are among them." if asked else ""
    return (
        f"Of the {counts['pool']} negatives of `{options.split}`, the {options.keep} of each group that the model "
        f"`{name}` finds likeliest: {kept}.{own} The counts above are older."
    )

"""Hugging Face datasets on disk: explicit features, the split, the card, all of it there at once or not at all.

Features are declared, never inferred: Arrow would fill the parameters of foreign tools with nulls, and these leak into
prompts. Nothing here depends on the clock or on chance outside the seed, so two runs write the same bytes.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from synthesis.dataset import exact_json
from synthesis.dataset.dataset_card import card, count
from synthesis.dataset.rows import preference_rows, sft_row
from synthesis.dataset.source import Row, Source
from synthesis.dataset.split import split
from synthesis.records import Json
from synthesis.run import Run

SFT = {"messages": "list", "tools": "list", "meta": "object"}
PREFERENCE = {"prompt": "list", "chosen": "list", "rejected": "lists", "tools": "list", "meta": "object"}
"""Columns of the two configs, each with the kind of JSON that it holds: `object`, `list` or `lists`."""


async def dataset_stage(run: Run) -> None:
    """Write the run's dataset and count what is in it. No server is needed any more."""
    source = Source(
        tools=run.tools,
        trajectories=run.trajectories_by_id,
        samples=run.samples,
        negatives=run.negatives,
        seed=run.config.seed,
        tools_per_prompt=run.config.tools_per_prompt,
        held_out=run.held_out,
    )
    with run.stage("dataset") as progress:
        run.counts = write(source, run.folder / "dataset", _facts(run), run.verdicts)
        progress(len(run.samples), len(run.samples), "")


def _facts(run: Run) -> dict[str, Json]:
    """What the card says about how the dataset was made."""
    config, servers = run.config, run.pool[0]
    facts = {
        "isolation": servers.isolation,
        "seed": config.seed,
        "author": run.author.name,
        "text deviation": "cosine distance, all-MiniLM-L6-v2" if config.embeddings else "words and letters",
    }
    sources = [f"WordNet {config.wordnet}"] * bool(config.wordnet)
    sources += ["nearest neighbours by all-MiniLM-L6-v2"] * config.neighbours
    facts |= {"words from": ", ".join(sources)} if sources else {}
    facts |= {"held out": ", ".join(config.hold_out)} if config.hold_out else {}
    facts |= {f"server {name}": number for name, number in servers.versions.items()}
    facts |= {f"server {name} was given up": why for name, why in run.manifest["servers_given_up"].items()}
    return facts


def write(
    source: Source,
    folder: Path,
    facts: Mapping[str, Json],
    tables: Mapping[str, Mapping[str, Mapping[str, int]]] = MappingProxyType({}),
) -> dict[str, Json]:
    """Write `folder`/sft, `folder`/preference and the card; return the counts, `tables` among them.

    `facts` goes into the card, and so do `tables`: what the executed negatives came to
    (`synthesis.negatives.executions`).

    The folder appears all at once: it is written beside and then renamed, so a killed run leaves none or a whole one.
    """
    sides = dict(zip(("train", "test"), split(source), strict=True))
    sft = {name: [sft_row(source, sample) for sample in samples] for name, samples in sides.items()}
    preference = {
        name: [row for sample in samples for row in preference_rows(source, sample)] for name, samples in sides.items()
    }
    used = {sample.trajectory_id: source.trajectories[sample.trajectory_id] for sample in source.samples}
    counts = count(source.samples, used, source.tools, {"sft": sft, "preference": preference})
    counts |= tables
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save(sft, SFT, partial / "sft")
    save(preference, PREFERENCE, partial / "preference")
    (partial / "README.md").write_text(card(counts, facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return counts


def save(sides: Mapping[str, Sequence[Row]], kinds: Mapping[str, str], folder: Path) -> None:
    """Write a `DatasetDict` with the features that `kinds` names: `object`, `list` or `lists` of JSON, by column."""
    import datasets
    from datasets.utils.json import ujson_loads

    def encode(value: Json, kind: str) -> Json:
        if kind == "object":
            return exact_json.dumps(value, ujson_loads)
        return [encode(item, {"list": "object", "lists": "list"}[kind]) for item in value]

    shapes = {"list": datasets.List(datasets.Json()), "lists": datasets.List(datasets.List(datasets.Json()))}
    features = datasets.Features({name: shapes.get(kind, datasets.Json()) for name, kind in kinds.items()})
    columns = {
        side: {name: [encode(row[name], kind) for row in rows] for name, kind in kinds.items()}
        for side, rows in sides.items()
    }
    made = {side: datasets.Dataset.from_dict(data, features=features) for side, data in columns.items()}
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        # An empty split needs a file too: without any, `load_from_disk` cannot read it back (datasets 5.2).
        shards = {side: None if part.num_rows else 1 for side, part in made.items()}
        datasets.DatasetDict(made).save_to_disk(str(folder), num_shards=shards)
    finally:
        if shown:
            datasets.enable_progress_bars()

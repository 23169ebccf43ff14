"""Rows of a dataset as a recipe asks for them: which table, which split, which difficulty, which negatives."""

from pathlib import Path
from typing import Any

from eval.rollouts.decisions import level
from synthesis.errors import UserError

Row = dict[str, Any]


def load_rows(data_args: Any, stage: str) -> list[Row]:
    """The rows of the stage's table, as Python objects, with the difficulty and the negatives that the recipe asks for.

    Raises `UserError` when folder, table or split is missing, and when nothing fits.
    """
    table = "sft" if stage == "sft" else "preference"
    rows = read_split(Path(data_args.dataset_name), table, data_args.dataset_train_split)
    if data_args.difficulty != "all":
        rows = [row for row in rows if level(row["meta"]) == data_args.difficulty]
    if not rows:
        raise UserError(f"difficulty: {data_args.dataset_name}/{table} has no request that is {data_args.difficulty}")
    return rows if stage == "sft" else only(rows, data_args.negatives)


def only(groups: list[Row], wanted: list[str] | None) -> list[Row]:
    """The groups with only those negatives whose kind or verdict (`executed`) is in `wanted`; None keeps all.

    A group that has none is left out. Raises `UserError` when nothing is left.
    """
    if wanted is None:
        return groups
    kept = []
    for group in groups:
        facts = group["meta"]["negatives"]
        places = [k for k, n in enumerate(facts) if {n["kind"], n.get("executed", "")} & set(wanted)]
        if places:
            meta = {**group["meta"], "negatives": [facts[k] for k in places]}
            kept.append({**group, "rejected": [group["rejected"][k] for k in places], "meta": meta})
    if not kept:
        found = {word for g in groups for n in g["meta"]["negatives"] for word in (n["kind"], n.get("executed"))}
        there = ", ".join(sorted(word for word in found if word))
        raise UserError(f"negatives: none is of {', '.join(wanted)}; the dataset has {there}")
    return kept


def read_split(dataset: Path, table: str, split: str) -> list[Row]:
    """The rows of `dataset`/`table`, one split; `UserError` names what is missing."""
    from datasets import load_from_disk

    if not (dataset / table / "dataset_dict.json").is_file():
        raise UserError(
            f"dataset_name: {dataset} has no {table}/ dataset; make one with `rise synth SERVERS.json -o RUN`"
        )
    splits = load_from_disk(str(dataset / table))
    if split not in splits:
        raise UserError(f"dataset_train_split: {dataset / table} has no split {split!r}, only {', '.join(splits)}")
    wanted = {"messages", "tools", "meta"} if table == "sft" else {"prompt", "chosen", "rejected", "tools", "meta"}
    lacking = wanted - set(splits[split].column_names)
    if lacking:
        raise UserError(f"{dataset / table}: column {sorted(lacking)[0]!r} is missing from split {split!r}")
    return list(splits[split])

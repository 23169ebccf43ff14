"""Rows of a dataset as a recipe asks for them: which table, which split, which difficulty, which negatives."""

from pathlib import Path
from typing import Any, Literal

from eval.rollouts.decisions import level
from rise_train.rows.file_hash import hash_files
from rise_train.rows.row_schema import read_rows
from synthesis.errors import UserError
from synthesis.seeds import digest, seeded

Row = dict[str, Any]
Part = Literal["all", "train", "validation"]
HELD_OUT = 0.1
"""Share of the trajectories that are validated on where the dataset has no split for it."""


def load_rows(data_args: Any, stage: str, part: Part = "all", seed: int = 0) -> list[Row]:
    """The rows of the stage's table, as Python objects, with the difficulty and the negatives that the recipe asks for.

    Args:
        part: all that the recipe names, or, where some are held out to validate on, what is left or what is held out:
            the split that `validation_split` finds, else a tenth of the trajectories, drawn by `seed`.

    Raises:
        UserError: folder, table or split is missing, or nothing fits.
    """
    table = "sft" if stage == "sft" else "preference"
    own = validation_split(data_args, table) if part != "all" else None
    split = own if own and part == "validation" else data_args.dataset_train_split
    rows = read_split(Path(data_args.dataset_name), table, split)
    if part != "all" and own is None:
        rows = [row for row in rows if _is_held_out(row, seed) == (part == "validation")]
        if not rows:
            raise UserError(f"eval_strategy: {data_args.dataset_name}/{table} is too small to hold a tenth of it out")
    if data_args.difficulty != "all":
        rows = [row for row in rows if level(row["meta"]) == data_args.difficulty]
    if not rows:
        raise UserError(f"difficulty: {data_args.dataset_name}/{table} has no request that is {data_args.difficulty}")
    return rows if stage == "sft" else only(rows, data_args.negatives)


def validation_split(data_args: Any, table: str) -> str | None:
    """The split to validate on: the recipe's, else `validation` where there is one; None for a share of train.

    Raises `UserError` where the recipe names one that is not there.
    """
    named, found = data_args.dataset_eval_split, splits_of(Path(data_args.dataset_name), table)
    if named is not None and named not in found:
        raise UserError(
            f"dataset_eval_split: {data_args.dataset_name}/{table} has no split {named!r}, only {', '.join(found)}"
        )
    return named or ("validation" if "validation" in found else None)


def _is_held_out(row: Row, seed: int) -> bool:
    """The same for all rows of a trajectory, in both tables."""
    key = row["meta"].get("trajectory_id", row["meta"].get("id"))
    return seeded(seed, "validation", key).random() < HELD_OUT


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


def splits_of(dataset: Path, table: str) -> Any:
    """The splits of `dataset`/`table` by name; `UserError` where there is no such table."""
    from datasets import load_from_disk

    if not (dataset / table / "dataset_dict.json").is_file():
        raise UserError(
            f"dataset_name: {dataset} has no {table}/ dataset; make one with `rise synth SERVERS.json -o RUN`"
        )
    return load_from_disk(str(dataset / table))


def read_split(dataset: Path, table: str, split: str) -> list[Row]:
    """The rows of `dataset`/`table`, one split; `UserError` names what is missing."""
    splits = splits_of(dataset, table)
    if split not in splits:
        raise UserError(f"dataset_train_split: {dataset / table} has no split {split!r}, only {', '.join(splits)}")
    wanted = {"messages", "tools", "meta"} if table == "sft" else {"prompt", "chosen", "rejected", "tools", "meta"}
    lacking = wanted - set(splits[split].column_names)
    if lacking:
        raise UserError(f"{dataset / table}: column {sorted(lacking)[0]!r} is missing from split {split!r}")
    return read_rows(list(splits[split]), table, f"{dataset / table}, split {split!r}")


def hash_parts(data_args: Any, table: str, validates: bool) -> str:
    """Hash of all rows that a recipe trains or validates on, and of how they are told apart."""
    folder, train = (
        Path(data_args.dataset_name),
        hash_data(Path(data_args.dataset_name), table, data_args.dataset_train_split),
    )
    if not validates:
        return train
    own = validation_split(data_args, table)
    return digest(train, own and hash_data(folder, table, own))


def hash_data(dataset: Path, table: str, split: str) -> str:
    """Hash of the rows on disk of one split; `UserError` where there are none."""
    files = sorted((dataset / table / split).glob("*.arrow"))
    if not files:
        read_split(dataset, table, split)  # says in one sentence what is missing
        raise UserError(f"dataset_name: {dataset / table / split} holds no arrow file")
    return hash_files(files[0].parent, files)

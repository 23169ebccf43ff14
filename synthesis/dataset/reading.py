"""A dataset read back from disk, as rows that the data tools work on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synthesis.dataset.source import Row
from synthesis.errors import UserError

CONFIGS = ("sft", "preference")


@dataclass(frozen=True)
class Stored:
    """`sft` and `preference` rows by split, as `synthesis.dataset.writing` wrote them."""

    folder: Path
    sft: dict[str, list[Row]]
    preference: dict[str, list[Row]]

    def pairs(self, split: str) -> Iterator[tuple[Row, list[Row]]]:
        """Each group of a split with each of its rejected turns: what a trainer of pairs takes."""
        for row in self.preference[split]:
            for rejected in row["rejected"]:
                yield row, rejected


def read(path: Path) -> Stored:
    """The dataset of a run directory, or the dataset in the folder `path` itself.

    Raises `UserError` where neither is there.
    """
    import datasets

    folder = path / "dataset" if (path / "dataset").is_dir() else path
    if not all((folder / config / "dataset_dict.json").is_file() for config in CONFIGS):
        raise UserError(
            f"{path}: expected a run that `rise synth` has finished, or its dataset/ with sft and preference."
        )
    sft, preference = (
        {str(split): rows.to_list() for split, rows in datasets.load_from_disk(str(folder / config)).items()}
        for config in CONFIGS
    )
    return Stored(folder, sft, preference)

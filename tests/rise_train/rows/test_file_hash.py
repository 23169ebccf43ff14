"""What two folders of files have in common."""

from pathlib import Path

from rise_train.rows.file_hash import hash_files


def test_contents_and_names_count_and_the_place_does_not(tmp_path: Path) -> None:
    made = {}
    for name, files in {"one": "ab", "copy": "ab", "renamed": "ac", "swapped": "ba"}.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, text in zip(files, "xy", strict=True):
            (folder / file).write_text(text)
        made[name] = hash_files(folder, folder.iterdir())
    assert made["one"] == made["copy"]
    assert len(set(made.values())) == 3

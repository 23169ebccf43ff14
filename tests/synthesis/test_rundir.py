"""The run directory: whose it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synthesis.errors import UserError
from synthesis.rundir import FORMAT, Config, open_run, written_by

CONFIG = Config(
    seed=0, positives=1, negatives=1, author="offline", tools_per_prompt=1, result_chars=1, per_tool=1, servers="x"
)


def test_a_run_of_another_format_is_refused_before_its_records_are_read(tmp_path: Path) -> None:
    open_run(tmp_path, replace(CONFIG, format=FORMAT - 1), fresh=False)
    with pytest.raises(UserError, match=rf"format: {FORMAT - 1} -> {FORMAT}\); start over with --fresh"):
        open_run(tmp_path, CONFIG, fresh=False)
    assert open_run(tmp_path, CONFIG, fresh=True)["config"]["format"] == FORMAT
    assert json.loads((tmp_path / "manifest.json").read_text())["config_hash"] == CONFIG.hash


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["dataset/keep", "dataset.partial/keep", "samples.jsonl", "manifest.json", "dataset"])
def test_what_no_run_made_is_never_removed(tmp_path: Path, name: str, fresh: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"name": "mine"}')
    with pytest.raises(UserError, match="name another folder, or move it away"):
        open_run(tmp_path, CONFIG, fresh)
    assert path.read_text() == '{"name": "mine"}'


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_of_the_users_in_the_dataset_of_a_run_is_never_removed(tmp_path: Path, fresh: bool) -> None:
    open_run(tmp_path, CONFIG, fresh=False)
    (tmp_path / "dataset" / "sft").mkdir(parents=True)
    open_run(tmp_path, CONFIG, fresh)
    (tmp_path / "dataset" / "sft").mkdir(parents=True, exist_ok=True)
    (tmp_path / "dataset" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt: no manifest\.json says"):
        open_run(tmp_path, CONFIG, fresh)
    assert (tmp_path / "dataset" / "notes.txt").read_text() == "mine"


def test_another_version_of_the_package_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    open_run(tmp_path, replace(CONFIG, version=written_by()), fresh=False)
    with pytest.raises(UserError, match=r"version: .* -> '9\.9'\); start over with --fresh"):
        open_run(tmp_path, replace(CONFIG, version="9.9"), fresh=False)

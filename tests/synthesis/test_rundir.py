"""The run directory: whose it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synthesis.errors import UserError
from synthesis.rundir import FORMAT, Config, open_run

CONFIG = Config(
    seed=0, positives=1, negatives=1, author="offline", tools_per_prompt=1, result_chars=1, per_tool=1, servers="x"
)


def test_a_run_of_another_format_is_refused_before_its_records_are_read(tmp_path: Path) -> None:
    open_run(tmp_path, replace(CONFIG, format=FORMAT - 1), fresh=False)
    with pytest.raises(UserError, match=rf"format: {FORMAT - 1} -> {FORMAT}\); start over with --fresh"):
        open_run(tmp_path, CONFIG, fresh=False)
    assert open_run(tmp_path, CONFIG, fresh=True)["config"]["format"] == FORMAT
    assert json.loads((tmp_path / "manifest.json").read_text())["config_hash"] == CONFIG.hash

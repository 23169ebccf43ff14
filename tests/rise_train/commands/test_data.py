"""`rise data` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rise_train.commands.data import app
from rise_train.commands.terminal_page import show
from synthesis.dataset.reading import read
from synthesis.dataset.sample_pages import pages
from synthesis.errors import UserError


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_show_prints_a_sample_by_filter_and_by_any_id(tiny_dataset: Path) -> None:
    page = next(page for page in pages(read(tiny_dataset)) if page["pattern"] == "sequential")
    negative = page["turns"][1]["negatives"][0]["id"]
    text = run("show", tiny_dataset, "--id", negative)
    assert "shop__cancel_order" in text
    assert "asked:" in text
    assert negative in text
    assert page["primitives"][0] in text
    assert "test · parallel" in run(
        "show", tiny_dataset, "--split", "test", "--pattern", "parallel", "--server", "weather"
    )
    with pytest.raises(UserError, match="0 samples fit"):
        run("show", tiny_dataset, "--kind", "no_such_kind")


def test_a_tools_control_characters_do_not_reach_the_terminal(tiny_dataset: Path) -> None:
    page = pages(read(tiny_dataset))[0]
    page["turns"][0]["results"] = ["\x1b[2J\x07gone [bold]not markup[/bold]"]
    console = Console(record=True, width=200)
    with console.capture() as captured:
        show(console, page)
    assert "\x1b[2J" not in captured.get()
    assert "\x07" not in captured.get()
    assert "[bold]not markup[/bold]" in captured.get()


def test_view_export_and_decontaminate_write_files(tiny_dataset: Path, tmp_path: Path) -> None:
    assert "24 samples" in run("view", tiny_dataset, "-o", tmp_path / "data.html")
    assert "<!doctype html>" in (tmp_path / "data.html").read_text()
    run("export", tiny_dataset, "--to", "openai", "-o", tmp_path / "openai")
    line = (tmp_path / "openai" / "preference.test.jsonl").read_text().splitlines()[0]
    assert set(json.loads(line)) == {"input", "preferred_output", "non_preferred_output"}
    request = read(tiny_dataset).sft["train"][0]["messages"][0]["content"]
    (tmp_path / "bench.json").write_text(json.dumps([request]))
    assert request in run("decontaminate", tiny_dataset, "--against", tmp_path / "bench.json")


def test_a_folder_that_is_no_dataset_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rise_train.cli", "data", "show", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "expected a run" in done.stderr
    assert "Traceback" not in done.stderr

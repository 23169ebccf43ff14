"""The command line as a user meets it: help, statuses, one sentence for what he can mend."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rise_train import __version__, cli
from synthesis.errors import UserError

COMMANDS = ("synth", "eval", "check", "ablate", "report", "publish", "version")
ROOT = Path(__file__).parents[2]


def rise(*args: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "rise_train.cli", *args], capture_output=True, text=True, cwd=ROOT)


def status(args: list[str]) -> int:
    """Exit status of `rise` with these arguments, in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    return int(ended.value.code or 0)


def test_help_loads_nothing_heavy_and_names_every_command() -> None:
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "mcp", "numpy", "matplotlib", "pydantic"}
    code = (
        "import sys\nfrom rise_train.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "LOADED []" in done.stdout
    assert all(re.search(rf"\b{command}\b", done.stdout) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"rise {command}" in text
    for option, blank in re.findall(r"(--[a-z-]+)[^\S\n]+(?:-\w)?[^\S\n]+<\w+>([^\S\n]+│)", text):
        raise AssertionError(f"{option} has no help {blank}")


def test_options_that_the_issue_promises(capsys: pytest.CaptureFixture[str]) -> None:
    promised = {
        "synth": ["SERVERS.json", "--output", "--seed", "--positives", "--negatives", "--author"],
        "eval": ["MODEL", "--dataset", "--split", "--json"],
        "check": ["CONFIG.yaml"],
        "publish": ["RUN_OR_MODEL", "--push", "--repo-id"],
    }
    for command, words in promised.items():
        status([command, "--help"])
        text = capsys.readouterr().out
        assert not [word for word in words if word not in text]


def test_a_mistake_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    done = rise("report", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'ablation.json'}: no such file")
    assert done.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ["synth", "none.json", "-o", "run"],
        ["eval", "./none", "--dataset", "none"],
        ["check", "none.yaml"],
        ["ablate", "none.yaml"],
        ["publish", "none"],
        ["publish", "none", "--push"],
    ],
    ids=" ".join,
)
def test_a_missing_file_is_named(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert ("--repo-id" if "--push" in args else "none") in error


@pytest.mark.parametrize("args", [["synth"], ["nonsense"], ["synth", "a.json", "-o", "r", "--positives", "0"]])
def test_wrong_usage_is_status_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status(args) == 2
    assert "Usage: rise" in capsys.readouterr().err


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_args: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rise_train.ablation.reporting.report", interrupt)
    assert status(["report", str(tmp_path)]) == 130


def test_a_bug_is_not_dressed_up_as_the_users_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_args: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("rise_train.ablation.reporting.report", fail)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["report", str(tmp_path)])


def test_synth_passes_its_options_on_and_shows_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from synthesis.pipeline import Summary

    seen: dict[str, Any] = {}

    def synthesize(servers: Path, run: Path, **options: Any) -> Summary:
        seen.update(options, servers=servers, run=run)
        verdicts = {"deletion": {"covert": 2, "overt": 1}, "antonym": {"covert": 3, "overt": 0}}
        counts = {
            "samples": 40,
            "by_pattern": {"single": 30, "parallel": 10},
            "primitives": {"rejected": {"a_rule": 4}},
        }
        return Summary(run, {**counts, "executed_by_kind": verdicts, "executed_by_server": verdicts}, 12.3)

    monkeypatch.setattr("synthesis.pipeline.synthesize", synthesize)
    options = ["--seed", "7", "--positives", "40", "--negatives", "2", "--fresh"]
    assert status(["synth", "mcp.json", "-o", str(tmp_path), *options]) == 0
    assert (seen["servers"], seen["run"], seen["seed"], seen["positives"]) == (Path("mcp.json"), tmp_path, 7, 40)
    assert (seen["negatives"], seen["author"], seen["fresh"]) == (2, "offline", True)
    printed = capsys.readouterr().out
    assert "single 30, parallel 10" in printed
    assert "rejected (a rule 4)" in printed
    assert "covert 5, overt 1" in printed
    assert "done in 12 s" in printed


def test_eval_scores_a_model_and_prints_intervals(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    args = ["eval", str(tiny_model), "--dataset", str(tiny_dataset), "--limit", "1", "--json", str(out)]
    assert status(args) == 0
    result = json.loads(out.read_text())
    assert result["n_tasks"] == 1
    printed = capsys.readouterr().out
    rate = result["metrics"]["acc_task"]
    assert "1 tasks of test" in printed
    assert f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f}" in printed


def test_version_names_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["version"]) == 0
    text = capsys.readouterr().out
    assert f"rise-train {__version__}" in text
    assert re.search(r"^transformers \d", text, re.MULTILINE)


def test_user_errors_from_anywhere_reach_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise UserError("recipe.yaml: unknown field `x`")

    monkeypatch.setattr("rise_train.commands.check.check_config", refuse)
    assert status(["check", str(tmp_path / "recipe.yaml")]) == 2
    assert capsys.readouterr().err == "error: recipe.yaml: unknown field `x`\n"

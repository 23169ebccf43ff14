"""The upload, against a stand-in that speaks the Hub's protocol: what a stranger gets, and each way to fail."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hub import READER, Hub
from rich.console import Console

from rise_train.cli import main
from rise_train.publishing.hub import ask, upload
from synthesis.errors import UserError

DOCS = Path(__file__).parents[3] / "docs" / "publishing.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder to upload, with two large files."""
    place = tmp_path / "folder"
    place.mkdir()
    (place / "README.md").write_text("---\ntags: [x]\n---\nA model.\n")
    (place / "config.json").write_text("{}")
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (place / name).write_bytes(os.urandom(100_000))
    return place


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways by which huggingface_hub sends large files."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def push(folder: Path, name: str = "someone/mine", private: bool = True) -> str:
    """Upload as `rise publish --push` does; what it prints."""
    console = Console(width=200)
    with console.capture() as said:
        upload(folder, ask(name, private), console)
    return said.get()


def test_a_stranger_uses_what_was_pushed(adapter: Path, tiny_model: Path, tmp_path: Path, hub: Hub) -> None:
    from transformers import AutoTokenizer

    hub.add("someone/base", contents(tiny_model))
    command = [sys.executable, "-m", "rise_train.cli", "publish", str(adapter), "-o", str(tmp_path / "out")]
    command += ["--base-id", "someone/base", "--push", "--repo-id", "someone/mine", "--public"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    repo = hub.repos["someone/mine"]
    assert f"uploaded: {hub.address}/someone/mine/commit/{repo.sha}" in done.stderr
    assert (repo.files, repo.commits, repo.private) == (contents(tmp_path / "out"), ["rise publish"], False)
    assert json.loads(repo.files["adapter_config.json"])["base_model_name_or_path"] == "someone/base"
    assert not any(path.startswith(("ref", "optimizer")) for path in repo.files)
    assert "base_model: someone/base" in repo.files["README.md"].decode()
    first = json.loads(repo.files["examples.json"])[0]
    by_card, by_docs, prompt, without_adapter = _stranger(repo.files["README.md"].decode(), first, tmp_path)
    assert by_card == by_docs == first["reply"].strip() != without_adapter
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    asked = tokenizer.apply_chat_template(
        first["messages"], tools=first["tools"], add_generation_prompt=True, return_dict=True
    )
    assert json.loads(prompt) == asked["input_ids"]


def _stranger(card: str, example: dict[str, Any], place: Path) -> list[str]:
    """What the code of the card and that of the docs print, in a process that knows nothing but the Hub's address.

    Then the prompt of the docs' code, as token ids, and what the base says to it without the adapter.
    """
    blocks = [re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0] for text in (card, DOCS.read_text())]
    blocks[0] = blocks[0].replace("max_new_tokens=256", "max_new_tokens=96")  # as many as the examples have
    blocks[0] = f"messages, tools = {example['messages']!r}, {example['tools']!r}\n{blocks[0]}"
    blocks[1] = blocks[1].replace("NAME/MODEL", "someone/mine").replace("NAME/BASE", "someone/base")
    blocks.append("print(inputs['input_ids'][0].tolist())")
    blocks.append(f"with model.disable_adapter():\n    {blocks[1].splitlines()[-2]}\n{blocks[1].splitlines()[-1]}")
    (place / "use.py").write_text("\nprint('=====')\n".join(blocks))
    env = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"} | {"HF_HOME": str(place / "home")}
    done = subprocess.run([sys.executable, "-I", "use.py"], cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [part.strip() for part in done.stdout.split("=====")]


def test_what_is_pushed_replaces_the_model_files_of_before(folder: Path, hub: Hub, transport: str) -> None:
    hub.add(
        "someone/mine",
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x", "LICENSE": b"MIT"},
        private=True,
    )
    push(folder)
    assert hub.repos["someone/mine"].files == {**contents(folder), "LICENSE": b"MIT"}
    assert any(("xorbs" if transport == "xet" else "/lfs/") in request for request in hub.requests)
    push(folder)
    assert hub.repos["someone/mine"].commits == ["initial", "rise publish"]


def test_a_new_repository_is_private(folder: Path, hub: Hub) -> None:
    push(folder)
    assert hub.repos["someone/mine"].private


def test_a_connection_that_breaks_leaves_no_half_and_can_be_tried_again(
    folder: Path, hub: Hub, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.dies_after = 50_000
    with pytest.raises(UserError, match=rf"someone/mine: the connection to {hub.address} failed \(.*the same command"):
        push(folder)
    assert hub.repos["someone/mine"].files == {}
    hub.dies_after = None
    assert "uploaded: " in push(folder)
    assert hub.repos["someone/mine"].files == contents(folder)


def test_without_a_token_nothing_is_even_compared(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "none"))
    with pytest.raises(SystemExit, match="2"):
        main(["publish", str(folder), "--push", "--repo-id", "someone/mine"])
    assert capsys.readouterr().err.strip() == (
        "error: --push: there is no token for the Hub; run `hf auth login`, or set HF_TOKEN"
    )
    assert hub.requests == []


def test_a_token_without_rights(folder: Path, hub: Hub, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("someone/mine", {}, private=True)
    monkeypatch.setenv("HF_TOKEN", READER)
    for name in ("someone/mine", "someone/new"):
        with pytest.raises(
            UserError, match=rf"--push: {name}: the token may not write there \(You don't have the rights"
        ):
            push(folder, name)
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    with pytest.raises(UserError, match=r"the Hub does not accept this token \(Invalid username or password"):
        push(folder, "someone/new")
    assert list(hub.repos) == ["someone/mine"]
    assert hub.repos["someone/mine"].files == {}


def test_a_name_that_is_taken(folder: Path, hub: Hub) -> None:
    hub.add("someone/rows", {}, kind="dataset")
    hub.add("someone/seen", {})
    with pytest.raises(UserError, match="--repo-id: someone/rows is a dataset on the Hub already"):
        push(folder, "someone/rows")
    with pytest.raises(UserError, match="someone/seen exists and is public; --public says that this is meant"):
        push(folder, "someone/seen")
    assert hub.repos["someone/seen"].files == {}
    push(folder, "someone/seen", private=False)
    assert hub.repos["someone/seen"].files == contents(folder)


def test_offline_and_a_bad_card_are_said(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "README.md").write_text("---\nmodel-index:\n- name: x\n  results:\n  - {task: {type: ''}}\n---\n")
    with pytest.raises(UserError, match=r"--push: someone/mine: the Hub refused: .*README"):
        push(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "--push: give --repo-id"),
        ("a b/c", "--repo-id: "),
        ("mine", "--repo-id: expected NAME/MODEL, found 'mine'"),
    ],
)
def test_a_name_is_asked_for_before_anything_is_done(name: str | None, message: str, hub: Hub) -> None:
    with pytest.raises(UserError, match=message):
        ask(name)
    assert hub.requests == []

"""`push_to_hub` in a recipe, against the stand-in of the Hub: what arrives is what `rise publish` would send."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from handmade import ROOT, flags, train
from hub import READER, WRITER, Hub

from rise_train.publishing.leaks import LOCAL, find_leaks
from rise_train.publishing.push_to_hub import pushing, take_push
from rise_train.runs.recipe import parse
from synthesis.errors import UserError

EXPECTED = {
    "README.md",
    "chat_template.jinja",
    "examples.json",
    "lineage.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
FULL = EXPECTED | {"config.json", "generation_config.json", "model.safetensors"}
ADAPTER = EXPECTED | {"adapter_config.json", "adapter_model.safetensors"}


def require_arrived(hub: Hub, place: Path, expected: set[str]) -> None:
    """The repository `someone/mine` holds the expected files, and no path of this machine in any of them."""
    files, folder = hub.repos["someone/mine"].files, place / "arrived"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    leaks = find_leaks(folder, [str(place), str(ROOT), str(Path.home())])
    assert (sorted(files), leaks) == (sorted(expected), [])


@pytest.fixture
def on_the_hub(sft_lora: Path, tiny_model: Path, tmp_path: Path, hub: Hub) -> Path:
    """The adapter of a short SFT, whose base is on the Hub."""
    hub.add("someone/base", {path.name: path.read_bytes() for path in tiny_model.iterdir()})
    folder = tmp_path / "sft"
    shutil.copytree(sft_lora, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    for name, field in (("adapter_config.json", "base_model_name_or_path"), ("rise_manifest.json", "base")):
        stored = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**stored, field: "someone/base"}))
    return folder


def test_dpo_sends_no_reference_no_pickle_and_no_path(
    on_the_hub: Path, tiny_dataset: Path, tmp_path: Path, hub: Hub
) -> None:
    """TRL would have sent `ref/`, `training_args.bin`, the checkpoints' files and the adapter's parent."""
    out = tmp_path / "dpo"
    recipe = str(ROOT / "recipes" / "tiny" / "dpo" / "config_lora.yaml")
    command = [sys.executable, "-m", "rise_train.dpo", "--config", recipe]
    command += flags("dpo", on_the_hub, tiny_dataset, out, push_to_hub=True, hub_model_id="someone/mine")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    require_arrived(hub, tmp_path, ADAPTER)
    repo = hub.repos["someone/mine"]
    assert (repo.private, repo.commits) == (True, ["rise publish"])
    assert json.loads(repo.files["adapter_config.json"])["base_model_name_or_path"] == "someone/base"
    assert "base_model: someone/base" in repo.files["README.md"].decode()
    assert not LOCAL.search(repo.files["lineage.json"].decode())
    assert [t["stage"] for t in json.loads(repo.files["lineage.json"])["trainings"]] == ["sft", "dpo"]
    assert {path.name for path in out.with_name("dpo-publish").iterdir()} == ADAPTER
    assert "push_to_hub: at the end, to someone/mine (private), what `rise publish` would send" in done.stdout
    assert f"uploaded: {hub.address}/someone/mine" in done.stderr


@pytest.mark.usefixtures("same_process")
def test_a_finished_training_is_sent_by_the_same_command(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the recipe's token, not that of the machine, and public, since the recipe says so."""
    wanted = {"push_to_hub": True, "hub_model_id": "someone/mine", "hub_private_repo": False, "hub_token": WRITER}
    monkeypatch.setenv("HF_TOKEN", READER)
    out = tmp_path / "sft"
    with pytest.raises(UserError, match="push_to_hub: someone/mine: the token may not write there"):
        train("sft", "full", tiny_model, tiny_dataset, out, **{**wanted, "hub_token": READER})
    assert (out / "rise_manifest.json").is_file()
    assert hub.repos == {}
    train("sft", "full", tiny_model, tiny_dataset, out, **wanted)
    require_arrived(hub, tmp_path, FULL)
    repo = hub.repos["someone/mine"]
    assert (repo.private, repo.commits) == (False, ["rise publish"])
    assert WRITER not in "".join(path.read_text() for path in out.glob("*.json"))


def asked(**changes: Any) -> tuple[Any, Any, Any]:
    """Arguments of a LoRA training whose base is on the Hub, with a push."""
    from transformers.trainer_utils import HubStrategy

    fields: dict[str, Any] = {"push_to_hub": True, "hub_model_id": "someone/mine", "hub_private_repo": None}
    fields |= {"hub_token": None, "hub_strategy": HubStrategy.EVERY_SAVE, "hub_always_push": False}
    fields |= {"hub_revision": None, "process_index": 0}
    model = {"model_name_or_path": "someone/base", "use_peft": True}
    parts = [{"reference": None}, fields, model]
    return tuple(SimpleNamespace(**{k: changes.get(k, v) for k, v in part.items()}) for part in parts)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hub_model_id": None}, "push_to_hub: give hub_model_id NAME/MODEL"),
        ({"hub_model_id": "mine"}, "hub_model_id: expected NAME/MODEL, found 'mine'"),
        ({"hub_revision": "v2"}, "hub_revision: the finished model is sent once, to the main branch"),
        ({"hub_always_push": True}, "hub_always_push: the finished model is sent once"),
        (
            {"model_name_or_path": "./base"},
            "the adapter's base would be ./base, which others cannot load",
        ),
        ({"reference": "merged"}, "push_to_hub: the adapter's base would be a merged model of the training's own"),
    ],
)
def test_what_cannot_be_sent_is_said_before_the_training(changes: dict[str, Any], message: str, hub: Hub) -> None:
    with pytest.raises(UserError, match=message):
        take_push(*asked(**changes))
    assert hub.requests == []


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_checkpoints_are_never_sent(strategy: str, hub: Hub) -> None:
    from transformers.trainer_utils import HubStrategy

    with pytest.raises(UserError, match=f"hub_strategy: {strategy} would send checkpoints"):
        take_push(*asked(hub_strategy=HubStrategy(strategy)))


def test_a_token_and_the_network_are_asked_for_before_the_training(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="push_to_hub: there is no token for the Hub"):
        take_push(*asked())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="push_to_hub: HF_HUB_OFFLINE is set"):
        take_push(*asked(hub_token=WRITER))


def test_trl_and_the_manifest_see_nothing_of_it(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, hub: Hub) -> None:
    recipe = ["--config", str(ROOT / "recipes" / "tiny" / "sft" / "config_full.yaml")]
    recipe += flags("sft", tiny_model, tiny_dataset, tmp_path / "out")
    plain = parse("sft", recipe)[1]
    wanted = ["--push_to_hub", "True", "--hub_model_id", "a/b", "--hub_strategy", "end", "--hub_private_repo", "True"]
    data, training, model = parse("sft", [*recipe, *wanted, "--hub_token", WRITER])
    assert take_push(data, training, model) is not None
    kept = {name: getattr(training, name) for name in vars(plain) if name.startswith(("hub_", "push_"))}
    assert kept == {name: getattr(plain, name) for name in kept}
    assert take_push(data, plain, model) is None


def test_one_process_sends(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Path] = []
    monkeypatch.setattr("rise_train.publishing.push_to_hub.publish", lambda folder, push: sent.append(folder))
    stage = pushing(lambda data_args, training_args, model_args: tmp_path / "rise_manifest.json")
    for rank in (1, 0):
        stage(*asked(process_index=rank))
    assert sent == [tmp_path]

"""`rise publish`: what is copied, what is refused, that the copy is proved, and that only `--push` uploads."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from rich.console import Console

import rise_train.publish as module
from rise_train.leaks import find_leaks, portable
from rise_train.publish import Source, copy_model, prove_same, publish, trial_prompts
from synthesis.errors import UserError


def quiet() -> Console:
    """A console that prints into a string."""
    return Console(file=io.StringIO(), width=120)


@pytest.fixture
def trained(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder with everything that a training leaves lying about."""
    model = tmp_path / "trained"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "_name_or_path": str(tmp_path / "base")}))
    manifest = {"stage": "sft", "base": str(tmp_path / "base"), "parent": str(tmp_path / "base"), "final_loss": 0.5}
    (model / "rise_manifest.json").write_text(json.dumps(manifest))
    for name in ("optimizer.pt", "training_args.bin", "log_history.json", "checkpoint-2/model.safetensors"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"x")
    return model


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter on the small model, with a `ref` adapter beside it as TRL's DPOTrainer leaves one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("lora") / "adapter"
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    model.add_adapter("ref", config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    assert (folder / "ref" / "adapter_model.safetensors").is_file()
    return folder


def test_a_model_is_copied_clean_and_proved(trained: Path, tiny_dataset: Path) -> None:
    console = quiet()
    target = publish(trained, dataset=tiny_dataset, console=console)
    assert target == trained.with_name("trained-publish")
    expected = {"README.md", "chat_template.jinja", "config.json", "examples.json", "generation_config.json"}
    expected |= {"lineage.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in target.iterdir()} == expected
    assert "_name_or_path" not in json.loads((target / "config.json").read_text())
    assert str(trained.parent) not in "".join(p.read_text() for p in target.iterdir() if p.suffix != ".safetensors")
    examples = json.loads((target / "examples.json").read_text())
    assert len(examples) == 3
    assert all(example["reply_ids"] and example["tools"] for example in examples)
    assert "nothing was uploaded" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not target.with_name(target.name + ".part").exists()
    _answers_as_its_examples(target, examples)


def _answers_as_its_examples(folder: Path, examples: list[dict[str, Any]]) -> None:
    from eval.policies import LocalPolicy, Prompt

    policy = LocalPolicy(folder, batch_size=1, max_new_tokens=96)
    replies = policy.reply([Prompt(example["messages"], example["tools"]) for example in examples])
    assert [reply.text for reply in replies] == [example["reply"] for example in examples]


def test_a_copy_that_answers_otherwise_is_not_published(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    def spoil(found: Source, target: Path, base_id: str | None) -> None:
        copy_model(found, target, base_id)
        weights = load_file(target / "model.safetensors")
        save_file({k: -v.flip(0) for k, v in weights.items()}, target / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(module, "copy_model", spoil)
    with pytest.raises(UserError, match="gives other replies than"):
        publish(trained, console=quiet())
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]


def test_a_copy_that_does_not_load_is_not_published(trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    copy_model(Source(trained), broken, None)
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(UserError, match="the copy does not load in a clean process"):
        prove_same(Source(trained), broken, trial_prompts(None)[:1])


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs; remembers what it was sent."""

    seen: ClassVar[list[tuple[str, Any]]] = []

    def do_GET(self) -> None:
        """Repository information."""
        self._answer({"id": "someone/mine", "private": True, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        """Create a repository, say how files are sent, take the commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        Hub.seen.append((self.path, lines))
        if self.path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            self._answer({"files": files})
        elif self.path.endswith("/commit/main"):
            url = f"{self._here()}/someone/mine/commit/1"
            self._answer({"success": True, "commitUrl": url, "commitOid": "1" * 40})
        elif self.path.endswith("/repos/create"):
            self._answer({"url": f"{self._here()}/someone/mine", "name": "someone/mine", "id": "someone/mine"})
        else:
            self._answer({})

    def _here(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a stand-in for the Hub."""
    Hub.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_adapter_names_its_base_and_only_push_uploads(adapter: Path, tmp_path: Path, hub: str) -> None:
    command = [sys.executable, "-m", "rise_train.cli", "publish", str(adapter), "-o", str(tmp_path / "out")]
    command += ["--base-id", "someone/base", "--push", "--repo-id", "someone/mine"]
    env = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_" + "x" * 12}
    done = subprocess.run(command, capture_output=True, text=True, env=env | {"HF_HUB_DISABLE_TELEMETRY": "1"})
    assert done.returncode == 0, done.stderr
    assert f"uploaded: {hub}/someone/mine/commit/1" in done.stderr
    out = tmp_path / "out"
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/base"
    assert not (out / "ref").exists()
    card = (out / "README.md").read_text()
    assert "base_model: someone/base" in card
    assert 'from_pretrained("someone/base")' in card
    created = next(body[0] for path, body in Hub.seen if path.endswith("/repos/create"))
    assert created["visibility"] == "private"
    commit = next(body for path, body in Hub.seen if path.endswith("/commit/main"))
    sent = {line["value"]["path"] for line in commit if line["key"] == "file"}
    assert sent == {path.name for path in out.iterdir()}


def test_an_adapter_on_a_local_base_needs_its_id(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter_config.json: base_model_name_or_path is a folder .* --base-id"):
        publish(adapter, tmp_path / "out", console=quiet())
    assert not (tmp_path / "out").exists()


def test_push_needs_a_name_before_anything_is_done(trained: Path) -> None:
    for repo_id, message in ((None, "--push: give --repo-id"), ("a b/c", "--repo-id: ")):
        with pytest.raises(UserError, match=message):
            publish(trained, push=True, repo_id=repo_id, console=quiet())
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]


def test_a_folder_that_is_not_ours_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="was not written by `rise publish`"):
        publish(trained, tmp_path / "thesis", console=quiet())
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.safetensors", "no .safetensors; other formats can carry code"),
        ("tokenizer_config.json", "no tokenizer_config.json"),
        ("chat_template.jinja", "no chat template"),
        ("config.json", "expected a run with an ablation.json, or the folder of a model"),
    ],
)
def test_an_incomplete_model_is_refused(trained: Path, gone: str, message: str) -> None:
    (trained / gone).unlink()
    with pytest.raises(UserError, match=message):
        publish(trained, console=quiet())
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]


LEAKS = [
    ("README.md", "token: hf_" + "a1B2" * 9, "a Hugging Face token"),
    ("lineage.json", '{"key": "sk-' + "a1B2" * 8 + '"}', "an OpenAI or Anthropic key"),
    ("config.json", "AKIA" + "A1B2" * 4, "an AWS key"),
    ("tokenizer.json", "ghp_" + "a1B2" * 9, "a GitHub token"),
    ("README.md", "--config " + "/home" + "/someone/recipe.yaml", "a path of some machine"),
    ("README.md", "see /srv/models/base/config.json", "a path of this machine"),
    ("tokenizer.json", '"/srv/models/base"', "a path of this machine"),
    ("README.md", "the-password-of-the-test", "the value of $RISE_TEST_PASSWORD"),
]


@pytest.mark.parametrize(("name", "text", "what"), LEAKS, ids=[f"{name}: {what}" for name, _, what in LEAKS])
def test_leaks_are_found(name: str, text: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISE_TEST_PASSWORD", "the-password-of-the-test")
    (tmp_path / name).write_text(text)
    found = find_leaks(tmp_path, ["/srv/models/base"])
    assert [(leak.file, leak.what) for leak in found] == [(name, what)]
    assert len(found[0].excerpt) < len(text)


def test_the_metadata_of_weights_is_searched(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"from": "/srv/models/base"})
    assert [leak.what for leak in find_leaks(tmp_path, ["/srv/models/base"])] == ["a path of this machine"]


def test_what_only_looks_like_a_leak_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"/home/": 5, "/tmp/x": 6}')
    (tmp_path / "README.md").write_text("Read /data/sales.xlsx; see https://hub/home/x, RUN/tmp/y and sk-short.")
    assert find_leaks(tmp_path, []) == []


def test_paths_become_portable_at_any_depth() -> None:
    home = "/home" + "/someone"
    content = {"a": [f"{home}/run/models/sft", {"b": f"--base {home}/other/base --x 1"}], "n": 3}
    assert portable(content, {f"{home}/run": "RUN"}) == {"a": ["RUN/models/sft", {"b": "--base base --x 1"}], "n": 3}

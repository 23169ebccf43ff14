"""`rise publish`: a folder that is ready for the Hub, and the proof that it works there.

Only what a user of the model needs is copied: weights as safetensors, tokenizer, chat template, a model card and the
lineage. No optimiser state, no `ref/` adapter, no path of this machine, no secret. Then the copy is loaded in a clean
process and must give the same replies as the original. Nothing is uploaded without `--push`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rise_train import clean_load
from rise_train.card import Lineage, model_card
from rise_train.leaks import find_leaks, portable
from synthesis.errors import UserError

KEPT = re.compile(
    r"(adapter_)?config\.json|generation_config\.json|(adapter_)?model[\w.-]*\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|[\w.-]+\.model|chat_template\.jinja"
)
LOCAL_KEYS = {"_name_or_path", "name_or_path", "tokenizer_file"}
"""Keys of configuration files that only say where a file was on this machine."""
MARK = "lineage.json"
"""A folder with this file was written by us and may be written again."""

TRIAL_TOOL = {
    "type": "function",
    "function": {
        "name": "weather__forecast",
        "description": "Weather of a city on a day.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "date": {"type": "string"}},
            "required": ["city", "date"],
        },
    },
}
TRIAL_REQUESTS = (
    "What will the weather be in Bern on 2025-03-14?",
    "Will it rain in Oslo on 2 April 2025?",
    "Tell me the forecast for Lisbon on 2025-05-21, please.",
)


@dataclass(frozen=True)
class Source:
    """What is published: the trained folder, and the run and arm that it came from, where known."""

    model: Path
    run: Path | None = None
    arm: str | None = None

    @property
    def base(self) -> str | None:
        """The base that an adapter names; None for a full model."""
        config = self.model / "adapter_config.json"
        if not config.is_file():
            return None
        return str(json.loads(config.read_text())["base_model_name_or_path"])


def publish(
    source: Path,
    output: Path | None = None,
    *,
    arm: str = "sft_dpo",
    base_id: str | None = None,
    dataset: Path | None = None,
    push: bool = False,
    repo_id: str | None = None,
    private: bool = True,
    console: Console | None = None,
) -> Path:
    """Write the folder, check it, and upload it if asked to.

    Args:
        source: a run directory with an ablation.json, or the folder of a model or adapter.
        output: where to; by default RUN/publish/ARM, or beside the model with `-publish` added to its name.
        arm: which arm of a run.
        base_id: Hub id of the base, written into the adapter's config and the card. An adapter that was trained on a
            local folder needs it.
        dataset: folder whose test prompts try the copy; by default the run's.
        push: upload to `repo_id` (a new repository is private if `private`).

    Returns:
        The folder.

    Raises:
        UserError: nothing to publish there, a base that others can't load, a leak, different replies, a failed upload.
    """
    console = console or Console(stderr=True)
    if push:
        _require_repo_id(repo_id)
    found = find_source(source, arm)
    target = output or _default_target(found)
    lineage = Lineage.read(found.model, found.run, found.arm)
    base_id = _public_base(found, lineage, base_id)
    part = target.with_name(target.name + ".part")
    _require_ours(target)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        copy_model(found, part, base_id)
        console.print(f"comparing {found.model.name} with its copy, loaded in a clean process", highlight=False)
        examples = prove_same(found, part, trial_prompts(dataset or _dataset_of(found)))
        _write_papers(part, found, lineage, base_id, repo_id or target.name, examples)
        _refuse_leaks(part, found)
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _show(target, len(examples), console)
    _advise(found, console)
    if push:
        assert repo_id is not None
        upload(target, repo_id, private, console)
    else:
        console.print("nothing was uploaded; --push --repo-id NAME/MODEL does that", style="dim", highlight=False)
    return target


def _require_repo_id(repo_id: str | None) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    if repo_id is None:
        raise UserError("--push: give --repo-id NAME/MODEL, the repository to upload to")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"--repo-id: {' '.join(str(error).split())}") from None


def find_source(source: Path, arm: str) -> Source:
    """The model folder that `source` means: itself, or the one of `arm` in a run directory."""
    if (source / "ablation.json").is_file():
        arms = json.loads((source / "ablation.json").read_text())["arms"]
        trained = [name for name, facts in arms.items() if "stage" in facts]
        if arm not in trained:
            raise UserError(f"{source / 'ablation.json'}: no trained arm {arm!r}; there are {', '.join(trained)}")
        found = Source(source / arms[arm]["model"], source, arm)
    else:
        found = Source(source)
    if not any((found.model / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UserError(
            f"{found.model}: expected a run with an ablation.json, or the folder of a model (config.json) or of an "
            "adapter (adapter_config.json)"
        )
    return found


def _default_target(found: Source) -> Path:
    if found.run is not None:
        return found.run / "publish" / str(found.arm)
    model = found.model.absolute()
    return model.with_name(f"{model.name}-publish")


def _require_ours(target: Path) -> None:
    if target.exists() and not (target.is_dir() and ((target / MARK).is_file() or not any(target.iterdir()))):
        raise UserError(f"{target}: exists and was not written by `rise publish`; give another folder with -o")


def _public_base(found: Source, lineage: Lineage, base_id: str | None) -> str | None:
    """The base's Hub id; None for a full model whose base has none."""
    base = found.base or lineage.base
    if base_id is not None or base is None:
        return base_id
    is_local = Path(base).is_dir() or base.startswith((".", "/", "~")) or base.count("/") != 1
    if found.base is not None and is_local:
        raise UserError(
            f"{found.model / 'adapter_config.json'}: base_model_name_or_path is a folder of this machine ({base}); "
            "give --base-id NAME/MODEL, the id under which others load that base"
        )
    return None if is_local else base


def copy_model(found: Source, target: Path, base_id: str | None) -> None:
    """Copy what belongs to the model or adapter, without what only this machine knows.

    Raises:
        UserError: no safetensors, no tokenizer or no chat template.
    """
    kept = [path for path in sorted(found.model.iterdir()) if path.is_file() and KEPT.fullmatch(path.name)]
    names = {path.name for path in kept}
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{found.model}: no .safetensors; other formats can carry code and are not published")
    if "tokenizer_config.json" not in names:
        raise UserError(f"{found.model}: no tokenizer_config.json; the tokenizer belongs into the folder")
    for path in kept:
        if path.name.endswith("config.json"):
            _write_json(target / path.name, _cleaned(json.loads(path.read_text()), path.name, base_id))
        else:
            shutil.copyfile(path, target / path.name)
    settings = json.loads((target / "tokenizer_config.json").read_text())
    if "chat_template.jinja" not in names and not settings.get("chat_template"):
        raise UserError(f"{found.model}: no chat template (chat_template.jinja); without it nobody knows the prompt")


def _cleaned(config: dict[str, Any], name: str, base_id: str | None) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in LOCAL_KEYS}
    if name == "adapter_config.json":
        kept["base_model_name_or_path"] = base_id
    return kept


def _dataset_of(found: Source) -> Path | None:
    folder = found.run / "dataset" if found.run else None
    return folder if folder and (folder / "sft" / "dataset_dict.json").is_file() else None


def trial_prompts(dataset: Path | None) -> list[dict[str, Any]]:
    """Three prompts: the first turns of test tasks if there is a dataset, else three about the weather."""
    if dataset is None:
        return [{"messages": [{"role": "user", "content": text}], "tools": [TRIAL_TOOL]} for text in TRIAL_REQUESTS]
    from eval.decisions import load_tasks

    tasks = load_tasks(dataset, "test", limit=3)
    return [{"messages": t.decisions[0].prompt.messages, "tools": t.decisions[0].prompt.tools} for t in tasks]


def prove_same(found: Source, copy: Path, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Load the copy in a clean process and the original in this one; the replies, if they are the same.

    Returns:
        The prompts with "reply" (text, special tokens included) and "reply_ids".

    Raises:
        UserError: one of them can't be loaded, or the replies differ.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "prompts.json").write_text(json.dumps(prompts))
        process = _clean_process(copy, folder, found.base)
        try:
            original = clean_load.answer(str(found.model), prompts, found.base)
        except (OSError, ValueError) as error:
            process.kill()
            raise UserError(f"{found.model}: does not load: {' '.join(str(error).split())[:300]}") from error
        finally:
            _, errors = process.communicate()
        if process.returncode != 0:
            last = errors.strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"{copy}: the copy does not load in a clean process: {last[0][:300]}")
        copied = json.loads((folder / "replies.json").read_text())
    if original != copied:
        raise UserError(f"{copy}: the copy gives other replies than {found.model}; it is not published")
    tokenizer = AutoTokenizer.from_pretrained(str(copy))
    return [{**p, "reply": tokenizer.decode(ids), "reply_ids": ids} for p, ids in zip(prompts, original, strict=True)]


def _clean_process(model: Path, folder: Path, base: str | None) -> "subprocess.Popen[str]":
    """`clean_load` isolated from this process' paths and from the network, in an empty working folder."""
    script, place = str(Path(clean_load.__file__).absolute()), str(model.absolute())
    command = [sys.executable, "-I", script, place, "prompts.json", "replies.json"]
    if base is not None:
        command.append(str(Path(base).absolute()) if Path(base).is_dir() else base)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _write_papers(
    target: Path, found: Source, lineage: Lineage, base_id: str | None, name: str, examples: list[dict[str, Any]]
) -> None:
    places = _places(found)
    _write_json(target / "examples.json", examples)
    _write_json(target / MARK, portable(lineage.content, places))
    card = model_card(lineage, name=name, base_id=base_id, is_adapter=found.base is not None)
    (target / "README.md").write_text(portable(card, places))


def _places(found: Source) -> dict[str, str]:
    """Folders of this machine and what the papers call them, the longest first."""
    places = {
        str(Path.cwd()): ".",
        str(found.model.absolute()): "MODEL",
        str(Path.home()): "~",
        sys.executable: "python",
    }
    if found.run is not None:
        places[str(found.run.absolute())] = "RUN"
    return dict(sorted(places.items(), key=lambda item: -len(item[0])))


def _refuse_leaks(folder: Path, found: Source) -> None:
    leaks = find_leaks(folder, [place for place in _places(found) if place != sys.executable])
    if leaks:
        raise UserError(f"{leaks[0].file}: holds {leaks[0].what}: {leaks[0].excerpt}; nothing was published")


def _show(target: Path, trials: int, console: Console) -> None:
    table = Table(title=f"{target}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("file")
    table.add_column("size", justify="right")
    for path in sorted(target.iterdir()):
        table.add_row(path.name, f"{path.stat().st_size / 1024:,.0f} kB")
    console.print(table, highlight=False)
    console.print(
        f"loads in a clean process; {trials} of {trials} greedy replies equal the original's; no local path, no secret",
        style="green",
        highlight=False,
    )


def _advise(found: Source, console: Console) -> None:
    """Say so if the tests call this arm worse than the one that it was trained from."""
    if found.run is None:
        return
    ablation = json.loads((found.run / "ablation.json").read_text())
    parent = ablation["arms"][found.arm]["from"]
    worse = [
        test["metric"]
        for test in ablation["tests"]
        if (test["a"], test["b"], test["verdict"]) == (found.arm, parent, "worse")
    ]
    if worse:
        console.print(
            f"note: {found.arm} is worse than {parent} in {', '.join(worse)}; --arm {parent} publishes that one",
            style="yellow",
            highlight=False,
        )


def upload(folder: Path, repo_id: str, private: bool, console: Console) -> None:
    """Upload the folder to the Hub; the token is the one of `hf auth login` or HF_TOKEN.

    Raises:
        UserError: the Hub refused or could not be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="rise publish")
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise UserError(f"--push: {repo_id}: the Hub refused: {' '.join(str(error).split())[:300]}") from error
    console.print(f"uploaded: {commit.commit_url}", style="green", highlight=False, soft_wrap=True)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

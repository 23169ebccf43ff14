"""`rise publish`: a folder that is ready for the Hub, and the proof that it works there.

Only what a user of the model needs is copied: weights as safetensors, tokenizer, chat template, a model card and the
lineage. No optimiser state, no `ref/` adapter, no path of this machine, no secret. Then the copy is loaded in a clean
process and must give the same replies as the original. Nothing is uploaded without `--push`.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rise_train.models.fetching import copy_of
from rise_train.publishing.hub import Push, upload
from rise_train.publishing.leaks import find_leaks, portable
from rise_train.publishing.model_card import Form, Lineage, model_card
from rise_train.publishing.model_files import Source, copy_model, find_source, merge_model
from rise_train.publishing.same_replies import prove_same, trial_prompts
from synthesis.errors import UserError
from synthesis.json_file import write_json
from synthesis.servers.mcp_config import ServerConfig, load_servers

MARK = "lineage.json"
"""A folder with this file was written by us and may be written again."""


def publish(
    source: Path,
    output: Path | None = None,
    *,
    arm: str = "sft_dpo",
    merged: bool = False,
    base_id: str | None = None,
    dataset: Path | None = None,
    servers: Path | None = None,
    name: str | None = None,
    push: Push | None = None,
    console: Console | None = None,
) -> Path:
    """Write the folder, check it, and upload it if asked to.

    Args:
        source: a run directory with an ablation.json, or the folder of a model or adapter.
        output: where to; by default RUN/publish/ARM, or beside the model with `-publish` added to its name; a merged
            model has `-merged` there as well.
        arm: which arm of a run.
        merged: publish an adapter merged into its base, as one model.
        base_id: Hub id of the base, written into the adapter's config and the card. An adapter that was trained on a
            local folder needs it, unless `rise model` wrote that folder.
        dataset: folder whose test prompts try the copy; by default the run's.
        servers: the servers file that the data was made with; none of its secrets may stand in the folder.
        name: what the card calls the model; by default the repository's name, or the folder's.
        push: where to upload it; without one nothing leaves this machine.

    Returns:
        The folder.

    Raises:
        UserError: nothing to publish there, a base that others can't load, a leak, different replies, a failed upload.
    """
    console = console or Console(stderr=True)
    configs = load_servers(servers).servers if servers else []
    found = find_source(source, arm)
    form: Form = "full" if found.base is None else "merged" if merged else "adapter"
    target = output or _default_target(found, merged)
    lineage = Lineage.read(found.model, found.run, found.arm)
    base = found.base or lineage.base
    copied = copy_of(Path(base)) if base else None
    base_id = _public_base(found, lineage, base_id or (copied[0] if copied else None), merged)
    part = target.with_name(target.name + ".part")
    _require_ours(target)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if merged:
            merge_model(found, part)
        else:
            copy_model(found, part, base_id)
        console.print(f"comparing {found.model.name} with its copy, loaded in a clean process", highlight=False)
        proof = prove_same(found, part, trial_prompts(dataset or _dataset_of(found)))
        title = name or (push.repo_id if push else target.name)
        card = model_card(lineage, name=title, base_id=base_id, form=form, weights=copied[1] if copied else None)
        _write_papers(part, found, lineage, card, proof.examples)
        _refuse_leaks(part, found, configs)
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _show(target, proof.line, console)
    _advise(found, console)
    if push:
        upload(target, push, console)
    else:
        console.print("nothing was uploaded; --push --repo-id NAME/MODEL does that", style="dim", highlight=False)
    return target


def _default_target(found: Source, merged: bool) -> Path:
    suffix = "-merged" if merged else ""
    if found.run is not None:
        return found.run / "publish" / f"{found.arm}{suffix}"
    model = found.model.absolute()
    return model.with_name(f"{model.name}{suffix}-publish")


def _require_ours(target: Path) -> None:
    if target.exists() and not (target.is_dir() and ((target / MARK).is_file() or not any(target.iterdir()))):
        raise UserError(f"{target}: exists and was not written by `rise publish`; give another folder with -o")


def _public_base(found: Source, lineage: Lineage, base_id: str | None, merged: bool) -> str | None:
    """The base's Hub id; None for a whole model whose base has none."""
    base = found.base or lineage.base
    if base_id is not None or base is None:
        return base_id
    local = is_local(base)
    if found.base is not None and local and not merged:
        raise UserError(
            f"{found.model / 'adapter_config.json'}: base_model_name_or_path is a folder of this machine ({base}); "
            "give --base-id NAME/MODEL, the id under which others load that base, or --merged for one whole model"
        )
    return None if local else base


def is_local(model: str) -> bool:
    """Whether `model` is a folder of this machine, or would be one, rather than an id of the Hub."""
    return Path(model).is_dir() or model.startswith((".", "/", "~")) or model.count("/") != 1


def _dataset_of(found: Source) -> Path | None:
    folder = found.run / "dataset" if found.run else None
    return folder if folder and (folder / "sft" / "dataset_dict.json").is_file() else None


def _write_papers(target: Path, found: Source, lineage: Lineage, card: str, examples: list[dict[str, Any]]) -> None:
    places = _places(found)
    write_json(target / "examples.json", examples)
    write_json(target / MARK, portable(lineage.content, places))
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


def _refuse_leaks(folder: Path, found: Source, servers: list[ServerConfig]) -> None:
    leaks = find_leaks(folder, [place for place in _places(found) if place != sys.executable], servers)
    if leaks:
        raise UserError(f"{leaks[0].file}: holds {leaks[0].what}: {leaks[0].excerpt}; nothing was published")


def _show(target: Path, proved: str, console: Console) -> None:
    table = Table(title=f"{target}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("file")
    table.add_column("size", justify="right")
    for path in sorted(target.iterdir()):
        table.add_row(path.name, f"{path.stat().st_size / 1024:,.0f} kB")
    console.print(table, highlight=False)
    console.print(
        f"loads in a clean process; {proved}; no local path, no secret", style="green", highlight=False, soft_wrap=True
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

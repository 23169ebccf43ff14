"""The table of recipes/README.md: what the estimate says of each recipe at its longest row.

    python tests/bench/recipes.py

No weights, no Hub, no data: the length of a row is the recipe's `max_length`. LoRA on one GPU, all weights on eight.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Print a row for each recipe."""
    print("| recipe | parameters | train | launch | weights | beside | activations | a GPU, GiB | measured |")
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in sorted(p for p in (ROOT / "recipes").iterdir() if (p / "sft" / "config_qlora.yaml").is_file()):
        for stage in ("sft", "dpo"):
            for kind in ("lora", "qlora", "full"):
                print(row(folder / stage / f"config_{kind}.yaml"), flush=True)


def row(path: Path) -> str:
    """The row of one recipe; DPO counts the base that its SFT recipe names."""
    from rise_train.models.skeleton import look
    from rise_train.runs.dry_run import Work, load_of
    from rise_train.runs.estimate import GIB, activations, memory
    from rise_train.runs.processes import Launch
    from rise_train.runs.recipe import Stage, parse
    from rise_train.runs.yaml_file import read_mapping

    stage: Stage = "dpo" if path.parent.name == "dpo" else "sft"
    base = read_mapping(path.parents[1] / "sft" / path.name)["model_name_or_path"]
    _, training, model = parse(stage, ["--config", str(path), "--model_name_or_path", base])
    launch = Launch() if model.use_peft else Launch("zero3", 8)
    second = "none" if stage == "sft" else "adapter" if model.use_peft else "model"
    load = load_of(Work(1, 0, training.max_length, 1, ""), training)
    shape = look(model)
    held = activations(model, shape, load)
    need = memory(shape, launch, held, str(training.optim), second, load.autocast)
    beside = need.total - need.weights - need.activations
    name = path.relative_to(ROOT / "recipes").as_posix()
    where = "one process" if launch.processes == 1 else f"{launch.kind}, {launch.processes}"
    share = f"{100 * shape.trainable / shape.parameters:.2f} %"
    sizes = " | ".join(f"{size / GIB:.1f}" for size in (need.weights, beside, need.activations, need.total))
    return f"| [{name}]({name}) | {shape.parameters / 1e9:.2f} B | {share} | {where} | {sizes} | not yet |"


if __name__ == "__main__":
    main()

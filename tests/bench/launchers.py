"""Does every launcher train what one process trains? Two CPU processes (gloo) against one, loss by loss.

    python tests/bench/launchers.py [CELL...]       # e.g. zero3/dpo/lora; all of them without arguments

The model is small and random, in float32, the data hand-made, with groups of unequal K; two processes take half the
batch each. DPO has its sigmoid loss alone: TRL's `sft` term is a mean over the tokens of a micro-batch, so that it
depends on how a batch is divided, on one process too.

Launched as a user would: accelerate with recipes/accelerate_configs, torchrun for plain DDP. Where DeepSpeed is not
installed its rows are left out, which the output says. accelerate leaves FSDP out on CPUs, so for it alone the child
process tells accelerate that its processes were GPUs; what then runs (fully_shard, DTensors, gloo) is real.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

KINDS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
WORK = [(stage, recipe) for stage in ("sft", "dpo") for recipe in ("lora", "full")]
TOLERANCE = 2e-5
"""Largest difference of a loss from the single process's, relative."""


def main(cells: list[str]) -> int:
    """Print a row for each cell; the status is the number of cells that failed."""
    from handmade import sft_row, tiny_llama, write_dataset

    failed, kinds = 0, KINDS
    if find_spec("deepspeed") is None:
        kinds = tuple(kind for kind in KINDS if not kind.startswith("zero"))
        print("DeepSpeed is not installed: no rows of ZeRO")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [sft_row(i) for i in range(24)]
        dataset, model = write_dataset(folder / "dataset", rows[:18], rows[18:]), tiny_llama(folder / "model")
        print(
            "| launcher | stage | weights | steps | largest difference of a loss | verdict |\n|---|---|---|---|---|---|"
        )
        for stage, recipe in WORK:
            wanted = [kind for kind in kinds if not cells or f"{kind}/{stage}/{recipe}" in cells]
            if not wanted:
                continue
            start = model
            if stage == "dpo" and recipe == "lora":
                train("single", "sft", recipe, model, dataset, start := folder / "adapter")
            alone = train("single", stage, recipe, start, dataset, folder / f"single-{stage}-{recipe}")
            for kind in wanted:
                failed += compare(kind, stage, recipe, start, dataset, folder / f"{kind}-{stage}-{recipe}", alone)
    return failed


def compare(kind: str, stage: str, recipe: str, start: Path, dataset: Path, out: Path, alone: list[float]) -> int:
    """Run one cell and print its row; 1 if it failed."""
    try:
        losses = train(kind, stage, recipe, start, dataset, out)
    except RuntimeError as error:
        print(f"| {kind} | {stage} | {recipe} | - | - | failed: {error} |", flush=True)
        return 1
    gap = max(abs(a - b) / abs(b) for a, b in zip(losses, alone, strict=True))
    verdict = "equal" if gap <= TOLERANCE else "differs"
    print(f"| {kind} | {stage} | {recipe} | {len(losses)} | {gap:.1g} | {verdict} |", flush=True)
    return int(gap > TOLERANCE)


def train(kind: str, stage: str, recipe: str, model: Path, dataset: Path, out: Path) -> list[float]:
    """Train by the launcher `kind`; returns every step's loss. Raises `RuntimeError` with the error of a failure."""
    from handmade import flags

    batch = 2 if kind == "single" else 1
    changes = {"per_device_train_batch_size": batch, "train_sampling_strategy": "sequential", "max_grad_norm": 0}
    changes |= {"loss_type": "sigmoid", "loss_weights": 1.0} if stage == "dpo" else {}
    arguments = ["--config", str(ROOT / f"recipes/tiny/{stage}/config_{recipe}.yaml")]
    arguments += flags(stage, model, dataset, out, **changes)
    done = subprocess.run(
        [sys.executable, *launcher(kind), *module(kind, stage), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    (out.parent / f"{out.name}.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        keep = Path(os.environ.get("LAUNCHERS_LOGS", tempfile.gettempdir())) / f"launchers-{kind}-{stage}-{recipe}.log"
        keep.write_text(done.stdout + done.stderr)
        lines = [line for line in done.stderr.splitlines() if "rror" in line] or ["no error was printed"]
        raise RuntimeError(f"{lines[0].strip()[:200]} (log: {keep})")
    history = json.loads((out / "log_history.json").read_text())
    return [entry["loss"] for entry in history if "loss" in entry]


def launcher(kind: str) -> list[str]:
    """The arguments of Python that start the processes."""
    if kind == "single":
        return []
    if kind in ("ddp", "fsdp2"):
        return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    config = ROOT / "recipes" / "accelerate_configs" / f"{kind}.yaml"
    return ["-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]


def module(kind: str, stage: str) -> list[str]:
    """What each process runs."""
    return [__file__, "--as-gpu", stage] if kind == "fsdp2" else ["-m", f"rise_train.{stage}"]


def as_gpu(stage: str, argv: list[str]) -> int:
    """Train with FSDP2 on the CPU: the launch file's variables, and an accelerate that takes its processes for GPUs."""
    from importlib import import_module

    import accelerate.state
    import yaml
    from accelerate.utils import DistributedType

    fields = yaml.safe_load((ROOT / "recipes/accelerate_configs/fsdp2.yaml").read_text())["fsdp_config"]
    os.environ |= {name.upper(): str(value) for name, value in fields.items()} | {"ACCELERATE_USE_FSDP": "true"}
    plain = accelerate.state.PartialState.__init__

    def pretend(self: accelerate.state.PartialState, *args: object, **kwargs: object) -> None:
        plain(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    accelerate.state.PartialState.__init__ = pretend
    status = import_module(f"rise_train.{stage}").run_cli(argv)
    if accelerate.state.AcceleratorState._shared_state["distributed_type"] != DistributedType.FSDP:
        raise RuntimeError("error: accelerate did not shard the model")
    return int(status)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-gpu"]:
        sys.exit(as_gpu(sys.argv[2], sys.argv[3:]))
    sys.exit(main(sys.argv[1:]))

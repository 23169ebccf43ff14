"""`rise ablate` on the small model with the real trainers: killed, started again, skipped, refused, reported."""

import copy
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from handmade import train
from rich.console import Console

from eval.scores.metrics import METRICS
from rise_train.ablation.ablate import ablate, gather
from rise_train.ablation.arms import RAW, load_config
from rise_train.ablation.job_graph import Layout, Plan, read_manifest
from rise_train.ablation.job_runner import Runner
from rise_train.ablation.reporting import report
from rise_train.cli import main
from rise_train.publishing.publish import publish
from synthesis.errors import UserError

RECIPE = {
    "dtype": "float32",
    "bf16": False,
    "max_length": 2048,
    "learning_rate": 1.0e-3,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 3,
    "logging_steps": 1,
    "save_steps": 2,
    "gradient_checkpointing": False,
}
STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_dataset: Path) -> Path:
    """A folder with ablation.yaml, its recipes, the base and the dataset."""
    folder = tmp_path_factory.mktemp("ablation")
    shutil.copytree(tiny_dataset, folder / "run" / "dataset")
    shutil.copytree(tiny_model, folder / "base")
    (folder / "sft.yaml").write_text(yaml.safe_dump(RECIPE))
    pushing = {"push_to_hub": True, "hub_model_id": "nobody/nothing"}  # of an ablation no arm is sent
    (folder / "dpo.yaml").write_text(yaml.safe_dump({**RECIPE, **pushing, "num_train_epochs": 1, "max_pairs": 6}))
    (folder / "ablation.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


CONFIG: dict[str, Any] = {
    "base": "base",
    "dataset": "run/dataset",
    "output_dir": "run",
    "eval": {"limit": 3, "batch_size": 8},
    "arms": {
        "sft": {"stage": "sft", "config": "sft.yaml"},
        "sft_dpo": {"stage": "dpo", "config": "dpo.yaml", "from": "sft"},
    },
}


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """`folder` after an ablation that was killed with all its processes in the middle of SFT, and started again."""
    command = [sys.executable, "-m", "rise_train.cli", "ablate", str(folder / "ablation.yaml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        sft = Layout(folder / "run").model("sft", 0)
        deadline = time.monotonic() + 200
        while not list(sft.glob("checkpoint-*/trainer_state.json")):
            assert first.poll() is None, "the ablation ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for process in [*psutil.Process(first.pid).children(recursive=True), first]:
            process.kill()
    assert not (sft / "rise_manifest.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    (folder / "stdout.txt").write_text(again.stdout)
    (folder / "stderr.txt").write_text(again.stderr)
    return folder


def quiet() -> Console:
    """A console that prints into nothing."""
    return Console(file=io.StringIO())


def plan_of(folder: Path, **changes: Any) -> Plan:
    """The plan of the folder's ablation, with changed fields."""
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    config = load_config(path)
    layout = Layout(config.output_dir)
    return Plan(config, layout, Runner(layout.work / "jobs", layout.work / "logs", 1, quiet()))


def test_a_killed_ablation_goes_on_where_it_was(done: Path) -> None:
    log = (done / "run" / "ablation" / "logs" / "train" / "seed0" / "sft.log").read_text()
    assert "going on from step" in log
    manifest = read_manifest(Layout(done / "run").model("sft", 0))
    assert manifest["steps"] == STEPS
    assert manifest["compute"]["trained_tokens"] == 2 * manifest["data"]["tokens"]


def test_progress_and_table_are_printed(done: Path) -> None:
    progress, table = (done / "stderr.txt").read_text(), (done / "stdout.txt").read_text()
    for line in ("train sft: started", "train sft_dpo: done in", "eval raw: done", "eval sft_dpo: done in"):
        assert line in progress
    assert "trajectory_match" in table
    assert "SFT+DPO against +SFT" in table.replace("\n", " ")


def test_ablation_json_is_what_others_rely_on(done: Path) -> None:
    text = (done / "run" / "ablation.json").read_text()
    ablation = json.loads(text)
    assert list(ablation["arms"]) == [RAW, "sft", "sft_dpo"]
    for arm in ablation["arms"].values():
        assert list(arm["metrics"]) == [metric.name for metric in METRICS]
        for rate in arm["metrics"].values():
            assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
        assert arm["metrics"]["acc_task"]["n"] == 3
    tested = {(test["a"], test["b"]) for test in ablation["tests"]}
    assert tested == {("sft", RAW), ("sft_dpo", "sft")}
    assert {test["verdict"] for test in ablation["tests"]} <= {"better", "worse", "no difference"}
    assert ablation["seeds"] == [0]
    assert ablation["data"]["rows"]["sft"] == {"train": 18, "test": 6}
    assert str(done) not in text
    command = ablation["arms"]["sft_dpo"]["command"]
    assert command.startswith("accelerate launch -m rise_train.dpo --config dpo.yaml")
    assert command.endswith("--output_dir RUN/ablation/models/seed0/sft_dpo")


def test_the_dpo_arm_started_from_the_sft_arm(done: Path) -> None:
    log = (done / "run" / "ablation" / "logs" / "train" / "seed0" / "sft_dpo.log").read_text()
    assert "log-probs equal those that the training of" in log


def test_what_is_done_is_skipped(done: Path) -> None:
    weights = Layout(done / "run").model("sft_dpo", 0) / "model.safetensors"
    before = weights.stat().st_mtime_ns, (done / "run" / "ablation.json").read_text()
    console = quiet()
    ablate(done / "ablation.yaml", console=console)
    assert (weights.stat().st_mtime_ns, (done / "run" / "ablation.json").read_text()) == before
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("done before, skipped") == 5


def test_a_changed_recipe_is_refused_and_nothing_is_lost(done: Path) -> None:
    (done / "other.yaml").write_text(yaml.safe_dump({**RECIPE, "learning_rate": 0.5}))
    changed = copy.deepcopy(CONFIG)
    changed["arms"]["sft"]["config"] = "other.yaml"
    (done / "changed.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match=r"arm sft in .* was trained with another recipe.*--fresh"):
        ablate(done / "changed.yaml", console=quiet())
    assert (Layout(done / "run").model("sft", 0) / "model.safetensors").is_file()


def test_other_evaluation_options_are_no_other_training(done: Path) -> None:
    plan = plan_of(done, eval={"limit": 2})
    plan.refuse_mixture(done)
    pending = [job.name for job in plan.jobs() if not plan.runner.is_done(job)]
    assert pending == ["eval/raw", "eval/seed0/sft", "eval/seed0/sft_dpo"]


def test_the_control_gets_the_compute_of_the_dpo_stage(done: Path, tmp_path: Path) -> None:
    arms = copy.deepcopy(CONFIG["arms"])
    arms["sft_more"] = {"stage": "sft", "config": "sft.yaml", "from": "sft", "match": "sft_dpo"}
    plan = plan_of(done, arms=arms)
    job = next(job for job in plan.jobs() if job.name == "train/seed0/sft_more")
    assert job.needs == ("train/seed0/sft", "train/seed0/sft_dpo")
    command = job.command()
    tokens = int(command[command.index("--train_tokens") + 1])
    dpo, sft = (read_manifest(plan.layout.model(arm, 0)) for arm in ("sft_dpo", "sft"))
    pair_tokens = dpo["compute"]["trained_tokens"]
    assert dpo["compute"]["reference_tokens"] == pair_tokens > 0
    assert 6 * tokens == pytest.approx(8 * pair_tokens, rel=0.01)
    trained = train(
        "sft",
        "full",
        plan.layout.model("sft", 0),
        plan.config.dataset,
        tmp_path / "more",
        train_tokens=2 * sft["data"]["tokens"],
    )
    assert read_manifest(trained)["compute"]["trained_tokens"] == pytest.approx(2 * sft["data"]["tokens"], rel=0.01)


def test_seeds_are_pooled_and_kept(done: Path) -> None:
    run = done / "two_seeds"
    shutil.copytree(done / "run", run)
    for part in ("models", "eval", "jobs/train", "jobs/eval"):
        place = run / "ablation" / part
        shutil.copytree(place / "seed0", place / "seed1")
    path = run / "ablation" / "eval" / "seed1" / "sft.json"
    result = json.loads(path.read_text())
    for task in result["tasks"]:
        task["counts"] |= {"task": 1, "icp_equal": task["counts"]["icp_gold"]}
    path.write_text(json.dumps(result))
    outcome = gather(plan_of(done, output_dir="two_seeds", seeds=[0, 1]))
    sft = outcome["arms"]["sft"]
    assert sft["metrics"]["acc_task"]["value"] == pytest.approx(0.5)
    assert sft["metrics"]["acc_task"]["n"] == 6
    assert set(sft["per_seed"]) == {"0", "1"}
    assert outcome["arms"][RAW]["metrics"]["acc_task"]["n"] == 3
    assert outcome["seeds"] == [0, 1]


def test_easy_and_hard_requests_are_scored_apart(done: Path) -> None:
    run = done / "difficulties"
    shutil.copytree(done / "run", run)
    for path in (run / "ablation" / "eval").rglob("*.json"):
        result = json.loads(path.read_text())
        result["tasks"][0]["difficulty"] = "hard"
        path.write_text(json.dumps(result))
    outcome = gather(plan_of(done, output_dir="difficulties"))
    parts = outcome["by_difficulty"]
    assert {level: part["arms"]["sft"]["metrics"]["acc_task"]["n"] for level, part in parts.items()} == {
        "easy": 2,
        "hard": 1,
    }
    assert all([(t["a"], t["b"]) for t in part["tests"]] == [(t["a"], t["b"]) for t in outcome["tests"]]
               for part in parts.values())  # fmt: skip


def mining_arms(**mine: Any) -> dict[str, Any]:
    arms = copy.deepcopy(CONFIG["arms"])
    arms["sft_mined"] = {"stage": "dpo", "config": "dpo.yaml", "from": "sft", "mine": mine, "against": ["sft_dpo"]}
    return arms


def test_an_arm_can_train_on_negatives_that_its_start_mines(done: Path, tmp_path: Path) -> None:
    plan = plan_of(done, arms=mining_arms(keep=1, limit=3))
    jobs = {job.name: job for job in plan.jobs()}
    miner, training = jobs["mine/seed0/sft_mined"], jobs["train/seed0/sft_mined"]
    assert miner.needs == ("train/seed0/sft",)
    assert training.needs == ("train/seed0/sft", "mine/seed0/sft_mined")
    command = training.command()
    dataset = Path(command[command.index("--dataset_name") + 1])
    assert miner.output == dataset / "mined.json"
    args = [str(tmp_path / "mined") if word == str(dataset) else word for word in miner.command()]
    assert main_status(args[args.index("rise_train.cli") + 1 :]) == 0
    assert json.loads((tmp_path / "mined" / "mined.json").read_text())["counts"]["negatives"] == 3
    assert ("sft_mined", "sft_dpo") in plan.config.comparisons()
    other = plan_of(done, arms=mining_arms(keep=2, limit=3))
    assert other.mined_key("sft_mined", 0) != plan.mined_key("sft_mined", 0)
    assert other.model_key("sft_mined", 0) != plan.model_key("sft_mined", 0)
    assert other.model_key("sft_dpo", 0) == plan.model_key("sft_dpo", 0)


def test_a_training_over_processes_gets_a_device_for_each(folder: Path) -> None:
    (folder / "ddp.yaml").write_text(yaml.safe_dump({"distributed_type": "MULTI_GPU", "num_processes": 4}))
    jobs = {job.name: job for job in plan_of(folder, accelerate_config="ddp.yaml").jobs()}
    training = jobs["train/seed0/sft"]
    assert (training.devices, jobs["eval/seed0/sft"].devices) == (4, 1)
    command = " ".join(training.command())
    assert "--gpu_ids all --main_process_port 0 -m rise_train.sft" in command  # what it is shown


def test_a_half_is_scored_by_itself(done: Path) -> None:
    plan = plan_of(done, eval={"limit": 3, "batch_size": 8, "half": "final"})
    pending = [job for job in plan.jobs() if not plan.runner.is_done(job)]
    assert [job.name for job in pending] == ["eval/raw", "eval/seed0/sft", "eval/seed0/sft_dpo"]
    assert all("--half final" in " ".join(job.command()) for job in pending)


def test_report_is_written_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (done / "run" / "report.html").unlink()
    main_status(["report", str(done / "run")])
    html = (done / "run" / "report.html").read_text()
    assert "<svg" in html
    assert "acc_icp_all" in html
    assert str(done) not in html
    assert "acc_icp_all" in capsys.readouterr().out


def test_report_needs_an_ablation(done: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ablation.json: no such file"):
        report([str(tmp_path)])
    shutil.copy(done / "run" / "ablation.json", tmp_path)
    with pytest.raises(UserError, match="the replies of arm raw are gone"):
        report([str(tmp_path)])


def test_an_arm_of_a_run_is_published_with_its_scores(done: Path) -> None:
    from huggingface_hub import ModelCard

    manifest = {"seed": 0, "servers": {"excel": "0.1.7"}, "command": f"rise synth mcp.json -o {done / 'run'}"}
    (done / "run" / "manifest.json").write_text(json.dumps(manifest))
    target = publish(done / "run", arm="sft", console=quiet())
    assert target == done / "run" / "publish" / "sft"
    card = ModelCard.load(target / "README.md")
    ablation = json.loads((done / "run" / "ablation.json").read_text())
    rates = {result.metric_type: result for result in card.data.eval_results}
    assert set(rates) == set(ablation["arms"]["sft"]["metrics"])
    acc_task = ablation["arms"]["sft"]["metrics"]["acc_task"]
    assert rates["acc_task"].metric_value == pytest.approx(acc_task["value"], abs=1e-4)
    assert f"{acc_task['low']:.3f} to {acc_task['high']:.3f}, n=3" in rates["acc_task"].metric_name
    lineage = json.loads((target / "lineage.json").read_text())
    assert [stage["stage"] for stage in lineage["trainings"]] == ["sft"]
    assert lineage["data"]["command"] == "rise synth mcp.json -o RUN"
    assert "| excel | 0.1.7 |" in card.content
    assert all(str(done) not in path.read_text() for path in target.iterdir() if path.suffix != ".safetensors")
    with pytest.raises(UserError, match="no trained arm 'dpo'; there are sft, sft_dpo"):
        publish(done / "run", arm="dpo", console=quiet())


def test_a_broken_recipe_fails_its_arm_in_one_sentence_and_can_be_mended(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "typo.yaml").write_text(yaml.safe_dump({**RECIPE, "lerning_rate": 1.0}))
    path = folder / "typo_ablation.yaml"
    config = {**CONFIG, "output_dir": str(tmp_path), "arms": {"sft": {"stage": "sft", "config": "typo.yaml"}}}
    path.write_text(yaml.safe_dump(config))
    assert main_status(["ablate", str(path), "--jobs", "1"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: train sft failed: ")
    assert "unknown field `lerning_rate`; did you mean `learning_rate`?" in last
    config["arms"] = {"sft": {"stage": "sft", "config": "sft.yaml"}}
    path.write_text(yaml.safe_dump(config))
    loaded = load_config(path)
    layout = Layout(tmp_path)
    Plan(loaded, layout, Runner(layout.work / "jobs", layout.work / "logs", 1, quiet())).refuse_mixture(path)


def test_a_second_ablation_in_the_folder_is_kept_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ablation").mkdir()
    with (tmp_path / "ablation" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another `rise ablate` is at work there"):
            ablate(folder / "ablation.yaml", output_dir=tmp_path, console=quiet())


def test_fresh_discards_arms_and_nothing_else(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ablation" / "models" / "seed0" / "sft").mkdir(parents=True)
    (tmp_path / "primitives.jsonl").write_text("kept")

    def stop(self: Runner, jobs: Any) -> None:
        raise UserError("reached")

    monkeypatch.setattr(Runner, "run", stop)
    with pytest.raises(UserError, match="reached"):
        ablate(folder / "ablation.yaml", output_dir=tmp_path, fresh=True, console=quiet())
    assert not (tmp_path / "ablation" / "models").exists()
    assert (tmp_path / "primitives.jsonl").read_text() == "kept"


BROKEN = [
    ({"arm": {}}, "unknown field `arm`"),
    ({"arms": {"sft": {"stage": "sft"}}}, "field `arms.sft.config` is missing"),
    ({"arms": {"sft": {"stage": "ppo", "config": "sft.yaml"}}}, "field `arms.sft.stage`: "),
    ({"arms": {"raw": {"stage": "sft", "config": "sft.yaml"}}}, "arms.raw: `raw` is the base itself"),
    ({"arms": {"sft": {"stage": "sft", "config": "sft.yaml", "from": "dpo"}}}, "arms.sft.from: expected one of raw"),
    ({"arms": {"sft": {"stage": "sft", "config": "none.yaml"}}}, "arms.sft.config: no such recipe: "),
    ({"arms": {"sft": {"stage": "sft", "config": "sft.yaml", "mine": {}}}}, "arms.sft.mine: only a dpo arm has"),
    ({"arms": {"sft": {"stage": "sft", "config": "sft.yaml", "against": ["x"]}}}, "arms.sft.against: expected other"),
    ({"seeds": [1, 1]}, "seeds: each seed once"),
    ({"seeds": []}, "field `seeds`: "),
    ({"jobs": 0}, "field `jobs`: "),
    ({"dataset": "nowhere"}, "run `rise synth` first"),
    ({"base": "./nowhere"}, "base: expected a model folder or an id of the Hub"),
    ({"accelerate_config": "none.yaml"}, "accelerate_config: no such file: "),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_file_is_one_sentence(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / "broken.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **change}))
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n"])
def test_what_is_no_mapping_is_one_sentence(folder: Path, text: str) -> None:
    path = folder / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken.yaml: (expected a YAML mapping|not valid YAML)"):
        load_config(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_config(folder / "none.yaml")


def test_the_shipped_file_has_the_five_arms() -> None:
    path = Path(__file__).parents[3] / "recipes" / "tiny" / "ablation.yaml"
    fields = yaml.safe_load(path.read_text())
    assert list(fields["arms"]) == ["sft", "dpo", "sft_dpo", "sft_more"]
    for arm in fields["arms"].values():
        assert (path.parent / arm["config"]).is_file()


def main_status(args: list[str]) -> int:
    """Exit status of `rise` with these arguments."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    return int(ended.value.code or 0)


os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

"""Launch files are read as accelerate reads them, and what cannot work is refused before anything starts."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from handmade import ROOT, flags

from rise_train.runs.processes import Launch, command, read_accelerate, read_environment, refuse
from rise_train.runs.recipe import _keep_to_one_gpu, parse
from synthesis.errors import UserError

FILES = ROOT / "recipes" / "accelerate_configs"


def recipe(stage: str, kind: str, *changes: str) -> tuple[Any, Any]:
    """Training and model arguments of a tiny recipe."""
    path = ROOT / "recipes" / "tiny" / stage / f"config_{kind}.yaml"
    _, training, model = parse(stage, ["--config", str(path), *changes])  # type: ignore[arg-type]
    return training, model


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, n) for n in ("ddp", "zero1", "zero2", "zero3", "fsdp2")]
    + [("single_gpu", "single"), ("zero3_offload", "zero3")],
)
def test_launch_files(name: str, kind: str) -> None:
    launch = read_accelerate(FILES / f"{name}.yaml")
    assert launch.kind == kind
    assert launch.processes == (1 if kind == "single" else 2)
    assert launch.saves_model
    assert not launch.loads_once
    assert launch.offload_weights == launch.offload_optimiser == (name == "zero3_offload")


def test_launch_files_are_accelerates_own() -> None:
    """accelerate itself reads every file, and knows every key in it."""
    from accelerate.commands.config.config_args import load_config_from_file

    for path in FILES.glob("*.yaml"):
        assert load_config_from_file(str(path)).num_machines == 1


def test_a_launched_process_knows_how() -> None:
    assert read_environment({}) == Launch()
    assert read_environment({"WORLD_SIZE": "4"}).kind == "ddp"
    zero = {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    assert read_environment(zero) == Launch("zero3", 2, saves_model=False)
    fsdp = {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}
    assert read_environment(fsdp) == Launch("fsdp2", 2, saves_model=False)  # accelerate's default for FSDP2: shards
    assert read_environment(fsdp | {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}).saves_model


@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        (Launch("zero3", 2, saves_model=False), "zero3_save_16bit_model: true"),
        (Launch("fsdp2", 2, saves_model=False), "fsdp_state_dict_type: FULL_STATE_DICT"),
        (Launch("fsdp2", 2, loads_once=True), "fsdp_cpu_ram_efficient_loading"),
    ],
)
def test_launches_that_cannot_work(launch: Launch, sentence: str) -> None:
    training, model = recipe("sft", "lora")
    with pytest.raises(UserError, match=sentence):
        refuse(launch, training, model, on_cpu=False)
    refuse(replace(launch, saves_model=True, loads_once=False), training, model, on_cpu=False)


def test_fsdp_is_nothing_on_cpus() -> None:
    with pytest.raises(UserError, match="FSDP on CPUs"):
        refuse(Launch("fsdp2", 2), *recipe("sft", "full"), on_cpu=True)


def test_a_precomputed_reference_under_fsdp() -> None:
    with pytest.raises(UserError, match="precompute_ref_log_probs"):
        refuse(Launch("fsdp2", 2), *recipe("dpo", "lora", "--precompute_ref_log_probs", "true"), on_cpu=False)
    refuse(Launch("fsdp2", 2), *recipe("dpo", "full", "--precompute_ref_log_probs", "true"), on_cpu=False)


def test_unknown_launch_files(tmp_path: Path) -> None:
    path = tmp_path / "tpu.yaml"
    path.write_text("distributed_type: XLA\n")
    with pytest.raises(UserError, match=r"tpu.yaml: field `distributed_type`: expected NO"):
        read_accelerate(path)


def test_commands() -> None:
    argv = ["--config", "x.yaml"]
    zero = command("dpo", argv, Launch("zero2", 4), FILES / "zero2.yaml")
    assert zero[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert zero[3:] == [
        "--num_processes",
        "4",
        "--config_file",
        str(FILES / "zero2.yaml"),
        "-m",
        "rise_train.dpo",
        *argv,
    ]
    assert "torch.distributed.run" in command("sft", argv, Launch("ddp", 2), None)


def test_mistakes_end_before_anything_starts(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rise train` with a launcher: one sentence and status 2, where accelerate would make it 1 and a traceback."""
    from rise_train.cli import main

    arguments = flags("sft", tiny_model, tiny_dataset, tmp_path / "out", max_length=40)
    start = ["train", "recipes/tiny/sft/config_full.yaml", "--config_file", str(FILES / "ddp.yaml")]
    with pytest.raises(SystemExit) as end:
        main([*start, *arguments])
    assert end.value.code == 2
    assert "do not fit into max_length 40" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_train_on_one_process(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run says what it would take and writes nothing; the same without --dry-run trains."""
    from rise_train.cli import main

    start = ["train", "recipes/tiny/sft/config_lora.yaml", *flags("sft", tiny_model, tiny_dataset, tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main([*start, "--dry-run", "--tflops", "1", "--num_processes", "2"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "steps        3, of 2 x 3 x 1 rows" in said
    assert "h at 1 TFLOP/s" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as end:
        main(start)
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "steps        6, of 1 x 3 x 1 rows" in said
    assert "step 6/6" in said
    assert "tokens/s" in said
    assert (tmp_path / "out" / "rise_manifest.json").is_file()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("num_processes: many", "field `num_processes`: expected a whole number"),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: auto}", "expected 0, 1, 2 or 3, found 'auto'"),
        ("distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: none.json}", "in none.json"),
    ],
)
def test_a_broken_launch_file_is_said_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=sentence) as said:
        read_accelerate(path)
    assert str(path) in str(said.value)


def test_one_process_keeps_to_one_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from rise_train.models.loading import init_kwargs

    gpus = torch.device("cuda", 0)
    training = SimpleNamespace(n_gpu=2, _n_gpu=2)
    _keep_to_one_gpu(training)
    assert training._n_gpu == 1
    assert "--num_processes 2" in capsys.readouterr().out
    model = SimpleNamespace(
        model_revision="main", dtype="float32", attn_implementation=None, load_in_4bit=False, load_in_8bit=False
    )
    for kind, device, expected in (
        ("NO", gpus, {"": gpus}),
        ("MULTI_GPU", gpus, None),
        ("NO", torch.device("cpu"), None),
    ):
        state = SimpleNamespace(distributed_type=kind)
        args = SimpleNamespace(distributed_state=state, device=device, model_init_kwargs=None)
        assert init_kwargs(model, args)["device_map"] == expected

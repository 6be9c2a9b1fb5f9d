"""The shipped files of ``accelerate launch`` mean what they say, read by Accelerate's own launcher."""

from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.training.train import check_machine

FOLDER = Path(__file__).parents[2] / "hub_configs" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))
EXPECTED = {  # distributed type, machines, processes
    "1-gpu": ("NO", 1, 1),
    "8-gpu": ("MULTI_GPU", 1, 8),
    "2x8-gpu": ("MULTI_GPU", 2, 16),
    "fsdp2": ("FSDP", 1, 8),
    "zero2": ("DEEPSPEED", 1, 8),
}


def test_every_file_is_expected_and_described():
    assert {path.stem for path in FILES} == EXPECTED.keys()
    readme = (FOLDER / "README.md").read_text("utf-8")
    for path in FILES:
        assert f"`{path.name}`" in readme


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_the_launch_that_each_file_promises(path):
    config = load_config_from_file(str(path))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type, config.num_machines, config.num_processes) == EXPECTED[path.stem]
    assert config.mixed_precision == "no" and config.use_cpu is False


def launcher_arguments(name: str):
    """What ``accelerate launch --config_file`` makes of a file, with the documented command behind it."""
    command = ["--config_file", str(FOLDER / name), "-m", "frozen_glyph.cli", "grow", "recipe.yaml"]
    return _validate_launch_command(launch_command_parser().parse_args(command))[0]


def test_data_parallel_launch_does_not_shard():
    environment = prepare_multi_gpu_env(launcher_arguments("8-gpu.yaml"))
    assert "ACCELERATE_USE_FSDP" not in environment


def test_fully_sharded_launch_wraps_our_blocks_and_reshards(monkeypatch):
    for key, value in prepare_multi_gpu_env(launcher_arguments("fsdp2.yaml")).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading is False
    assert plugin.transformer_cls_names_to_wrap == FrozenGlyphForCausalLM._no_split_modules


def test_zero_2_launch_refuses_bfloat16(monkeypatch, make_training):
    arguments = launcher_arguments("zero2.yaml")
    arguments.deepspeed_fields_from_accelerate_config = ""
    environment = prepare_deepspeed_cmd_env(arguments)[1]
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "2"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", environment["ACCELERATE_USE_DEEPSPEED"])
    with pytest.raises(RecipeError, match=r"training\.precision='bf16': DeepSpeed would cast the frozen weights"):
        check_machine(make_training(precision="bf16"))

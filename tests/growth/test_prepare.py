"""DATA_AT_SCALE.md: every engine that it shows encodes to the same packed file, and `grow` joins what they made."""

import os
import re
import stat
from pathlib import Path

import pytest
import yaml

import frozen_glyph.growth
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.tokens import tokenizer_sha256
from frozen_glyph.training import data, parts
from frozen_glyph.training.data import pack

PAGE = Path(frozen_glyph.growth.__file__).parent / "DATA_AT_SCALE.md"
WITH_DATASETS, WITH_DATATROVE, ON_SLURM, ON_RAY = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)

# What a login node has, for a cluster of this machine: each task of the array runs at once.
SBATCH = """#!/bin/sh
for script; do :; done
echo Submitted batch job 1
grep -q launch_pickled_pipeline $script || exit 0  # it merges statistics
for task in $(seq 0 $(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $script)); do
    RUN_OFFSET=0 SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here sh $script >&2 || exit 1
done
"""
SRUN = """#!/bin/sh
while [ $1 != launch_pickled_pipeline ]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/sh\necho here\n"


@pytest.fixture
def place(recipe_content, substrate_folder, texts, tmp_path, monkeypatch):
    """A folder with growth.yaml, whose text is three files, and substrate."""
    documents = texts[0].read_text("utf-8").split("\n\n")
    names = [f"text-{index}.txt" for index in range(3)]
    for index, name in enumerate(names):
        (tmp_path / name).write_text("\n\n".join(documents[index::3]), "utf-8")
    recipe = recipe_content({"data": {"sources": [{"files": names}]}})
    (tmp_path / "growth.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    (tmp_path / "substrate").symlink_to(substrate_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check_joined(place, monkeypatch):
    """``check_joined()``: three parts are there, and are joined to the bytes of packing alone."""
    recipe = load_recipe(place / "growth.yaml")
    tokenizer = GlyphSubstrate.from_pretrained(place / "substrate").tokenizer

    def packed(work):
        pack(recipe.data, tokenizer, tokenizer_sha256(tokenizer), work)
        return {path.name: path.read_bytes() for path in work.glob("tokens-*")}

    alone = packed(place / "alone")

    def check():
        assert len(list((place / "run" / ".work" / "parts").iterdir())) == 3
        for module in (data, parts):
            monkeypatch.setattr(module, "encoded", lambda texts, tokenizer: 1 // 0)
        assert packed(place / "run" / ".work") == alone

    return check


def run(*blocks):
    """The names that ``blocks`` make; logs are kept below the folder that is current."""
    names = {}
    for block in blocks:
        exec(block.replace('"logs"', f'"{Path("logs").absolute()}"'), names)
    return names


def test_processes_of_datasets(check_joined):
    run(WITH_DATASETS)
    check_joined()


@pytest.mark.slow
def test_local_executor_of_datatrove(check_joined):
    pytest.importorskip("datatrove", reason="needs datatrove")
    run(WITH_DATATROVE)
    check_joined()
    assert len(list(Path("logs/completions").iterdir())) == 3


@pytest.mark.slow
def test_slurm_executor_of_datatrove(check_joined, place, monkeypatch):
    """The job array that it submits does the work, in new processes that know only what was pickled."""
    pytest.importorskip("datatrove", reason="needs datatrove")
    for name, script in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
        program = place / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    prepared = WITH_DATATROVE[: WITH_DATATROVE.index("LocalPipelineExecutor(")]
    small = ON_SLURM.replace("tasks=256", "tasks=2").replace("source .venv/bin/activate", "true")
    run(prepared, small)["slurm"].run()
    check_joined()


def test_ray_executor_of_datatrove(place):
    pytest.importorskip("datatrove", reason="needs datatrove")
    prepared = WITH_DATATROVE[: WITH_DATATROVE.index("LocalPipelineExecutor(")]
    ray = run(prepared, ON_RAY)["ray"]
    assert (ray.world_size, ray.workers, ray.cpus_per_task) == (256, 64, 4)

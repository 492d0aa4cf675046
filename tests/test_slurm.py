"""configs/cluster/slurm.sh under bash, with SLURM's variables set and a `srun` that tells what it was given."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARRAY = {"SLURM_ARRAY_TASK_COUNT": "32", "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "0"}
ARRAY |= {"SLURM_ARRAY_JOB_ID": "77"}


def submit(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the script as SLURM would, in a folder with an environment that holds nothing."""
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").write_text(f"export PATH={folder / 'bin'}:$PATH\n")
    (folder / "bin").mkdir()
    for name in ("srun", "python"):
        (folder / "bin" / name).write_text(f'#!/bin/bash\necho "{name} $*"\n')
        (folder / "bin" / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    command = ["bash", str(ROOT / "configs/cluster/slurm.sh"), *args]
    return subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True, check=False)


def test_a_task_knows_its_place_in_the_array_that_was_given(tmp_path):
    done = submit(tmp_path, "local", "--runs", "runs", "a b.yaml", **ARRAY)
    assert (done.returncode, done.stdout) == (0, "srun python -m tasks sweep --runs runs a b.yaml\n")
    assert done.stderr == "task 6 of 32 of job 77\n"


def test_agents_run_under_srun(tmp_path):
    done = submit(tmp_path, "wandb", "me/study/abc", **ARRAY)
    assert done.stdout == "srun wandb agent --forward-signals me/study/abc\n"


def test_outside_of_an_array_it_runs_here(tmp_path):
    done = submit(tmp_path, "local", "--dry-run", "a.yaml")
    assert (done.stdout, done.stderr) == ("python -m tasks sweep --dry-run a.yaml\n", "")


@pytest.mark.parametrize("args", [[], ["locall"]])
def test_another_kind_is_refused(tmp_path, args):
    done = submit(tmp_path, *args, **ARRAY)
    assert done.returncode == 2
    assert "give wandb or local first" in done.stderr

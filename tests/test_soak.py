"""A sweep in chaos ends as the calm one: tests/helpers/soak.py, whole."""

import sys
from pathlib import Path

import pytest

from tests.helpers.small_disk import in_a_small_disk


@pytest.mark.slow
@pytest.mark.timeout(5_400)
def test_a_sweep_in_chaos_ends_each_cell_once_and_its_report_is_that_of_the_calm_one(tmp_path):
    disk = tmp_path / "disk"
    done = in_a_small_disk(disk, "300m", f"cd {Path.cwd()} && {sys.executable} -m tests.helpers.soak {disk} 300")
    print(done.stdout[-2_000:])
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "each ended once as in the calm sweep, and the report is the same" in done.stdout

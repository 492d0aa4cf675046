"""A file system of its own, to be filled to its end."""

import shutil
import subprocess
from pathlib import Path

import pytest


def in_a_small_disk(folder: Path, size: str, script: str) -> subprocess.CompletedProcess:
    """Run a shell script where `folder` is a file system of its own; skips where that may not be made."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder}"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False).returncode:
        pytest.skip("no file systems can be mounted here")
    command = ["unshare", "-rm", "sh", "-c", f"{mount} && {script}"]
    return subprocess.run(command, check=False, capture_output=True, text=True)

"""Every test: one thread an operation, no W&B server, and the environment as it was before."""

import logging
import multiprocessing
import os

import pytest

from tests.helpers import processes

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"
for name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def clean_environment():
    """Leak nothing: the environment after a test is the one before it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def warm_workers(monkeypatch):
    """Let the workers of sweeps begin with the libraries loaded."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: processes.warm)

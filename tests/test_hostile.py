"""The table of tests/helpers/hostile.py by the real command line: one sentence, exit status 2, never a traceback."""

import errno
import fcntl

import pytest
import yaml

from tasks.__main__ import main
from tasks.sweep.command import main as sweep
from tests.helpers.command_line import FASHION, fit
from tests.helpers.hostile import CONFIG, CONFIGS, DATA, DIRECTORIES, FLAGS, SWEEPS, write_sweep

pytestmark = pytest.mark.usefixtures("warm_workers")


def sentence(capsys) -> str:
    """The one line that was printed."""
    printed = capsys.readouterr()
    [line] = [line for line in (printed.out + printed.err).splitlines() if line]
    assert line.startswith("error: ")
    assert len(line) < 500
    return line


def short(value) -> str:
    return str(value)[:60]


@pytest.mark.parametrize(("flags", "said"), FLAGS, ids=short)
def test_a_mistake_in_a_flag_ends_with_one_sentence(tmp_path, capsys, flags, said):
    status = fit(tmp_path, FASHION, "--trainer.max_steps", "1", *flags)
    assert said in sentence(capsys)
    assert status == (1 if "callback stopped" in said else 2)


@pytest.mark.parametrize(("content", "said"), CONFIGS, ids=short)
def test_a_bad_config_file_ends_with_one_sentence(tmp_path, capsys, content, said):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert fit(tmp_path, FASHION, "--config", str(path)) == 2
    line = sentence(capsys)
    assert said in line
    assert str(path) in line


@pytest.mark.parametrize(("spoil", "said"), DIRECTORIES, ids=range(len(DIRECTORIES)))
def test_a_spoilt_run_directory_is_refused_in_one_sentence(tmp_path, capsys, spoil, said):
    flags = ["--trainer.max_steps", "2", "--run.name", "mine"]
    assert fit(tmp_path, FASHION, *flags) == 0
    spoil(tmp_path / "fashion_mnist" / "mine")
    capsys.readouterr()
    assert fit(tmp_path, FASHION, *flags) == 2
    assert said in sentence(capsys)


@pytest.mark.parametrize(("fate", "said"), DATA)
def test_data_that_would_spoil_any_run_are_refused_in_one_sentence(tmp_path, capsys, fate, said):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    flags = ["--data.fate", fate, "--trainer.default_root_dir", str(tmp_path / "runs"), "--progress.show", "false"]
    command = ["fit", "--config", str(tmp_path / "config.yaml"), *flags, "--run.name", "mine"]
    assert main(command) == 2
    assert said in sentence(capsys)
    assert main([*command, "--data.fate", "fine"]) == 0  # nothing was trained, so the name is free


@pytest.mark.parametrize(("fields", "said"), SWEEPS, ids=short)
def test_a_bad_sweep_file_ends_with_one_sentence(tmp_path, capfd, fields, said):
    path = write_sweep(tmp_path, seed_everything=[0])
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))
    assert sweep([str(path), "--runs", str(tmp_path / "runs"), "--workers", "1"]) == 2
    printed = capfd.readouterr()
    [line] = [line for line in (printed.out + printed.err).splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in printed.err


def test_a_named_config_in_a_sweep_of_several_cells_is_refused_before_the_first(tmp_path, capsys):
    path = write_sweep(tmp_path, seed_everything=[0, 1])
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"run": {"study": "tiny", "name": "one"}}))
    assert sweep([str(path), "--runs", str(tmp_path / "runs")]) == 2
    assert "2 runs cannot share 1 name: leave it out" in sentence(capsys)


def test_the_file_of_a_whole_sweep_is_read_as_strictly(tmp_path, capsys):
    path = write_sweep(tmp_path, seed_everything=[0, 1])
    path.write_text(path.read_text() + "method: random\n")
    assert sweep([str(path), "--runs", str(tmp_path / "runs")]) == 2
    assert "has the key 'method' twice" in sentence(capsys)


def test_a_file_for_the_folder_of_runs_is_one_sentence(tmp_path, capsys):
    path = write_sweep(tmp_path, seed_everything=[0])
    assert sweep([str(path), "--runs", str(path)]) == 2
    assert f"--runs: {path}/.sweep/" in (line := sentence(capsys))
    assert line.endswith("Not a directory: give another folder")


def test_a_damaged_entry_of_a_sweep_is_named(tmp_path, capsys):
    path, runs = write_sweep(tmp_path, seed_everything=[0]), tmp_path / "runs"
    assert sweep([str(path), "--runs", str(runs), "--workers", "1"]) == 0
    [entry] = runs.glob(".sweep/*.json")
    for content in ("{", "[]", '{"status": "done", "directory": 3}', '{"status": "done", "directory": "\\u0000"}'):
        entry.write_text(content)
        capsys.readouterr()
        assert sweep([str(path), "--runs", str(runs)]) == 2
        line = sentence(capsys)
        assert str(entry) in line
        assert "delete it, and its cell is looked up again" in line


def test_without_file_locks_a_fit_warns_and_a_sweep_is_refused(tmp_path, capsys, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert fit(tmp_path, FASHION, "--trainer.max_steps", "1") == 0
    assert "has no file locks (No locks available): let no second process train this run" in capsys.readouterr().err
    path = write_sweep(tmp_path, seed_everything=[0])
    assert sweep([str(path), "--runs", str(tmp_path / "runs"), "--workers", "1"]) == 2
    assert "has no file locks (No locks available): give --runs elsewhere" in sentence(capsys)


def test_a_verb_that_is_none_is_named(capsys):
    assert main(["trian"]) == 2
    assert "no verb 'trian'" in sentence(capsys)

"""The table of tests/helpers/hostile.py by the real command line: one sentence, exit status 2, never a traceback."""

import pytest
import yaml

from tasks.__main__ import main
from tasks.sweep.command import main as sweep
from tests.helpers.command_line import FASHION, fit
from tests.helpers.hostile import CONFIGS, DIRECTORIES, FLAGS, SWEEPS, write_sweep


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


def test_a_verb_that_is_none_is_named(capsys):
    assert main(["trian"]) == 2
    assert "no verb 'trian'" in sentence(capsys)

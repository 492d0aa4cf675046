"""Who may import whom (the project's layout), read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FORBIDDEN = {  # folder or file: what it may not import
    "datamodules": ("callbacks", "tasks", "tests"),
    "callbacks": ("datamodules", "tasks", "tests"),
    "tasks/base.py": ("datamodules", "callbacks"),
    "tasks/sharding.py": ("datamodules", "callbacks"),
    "tasks/networks": ("datamodules", "callbacks"),
    "tasks/optim": ("datamodules", "callbacks"),
    "tasks": ("tests",),
    "tasks/protocols.py": ("datamodules", "callbacks", "tasks"),
    "tasks/report": ("torch", "pytorch_lightning", "datamodules", "tasks.base", "tasks.cli"),
}
TYPES = "tasks.protocols"  # types alone: whoever must not import tasks may import these


def imported(path: Path) -> set[str]:
    """The modules that a file imports, and each name that it takes from one (which may be a module)."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("place", FORBIDDEN)
def test_no_forbidden_import(place):
    files = [Path(place)] if place.endswith(".py") else list(Path(place).rglob("*.py"))
    assert files
    bad = [
        (str(path), name)
        for path in files
        for name in imported(path)
        if not f"{name}.".startswith(f"{TYPES}.")
        and any(name == f or name.startswith(f + ".") for f in FORBIDDEN[place])
    ]
    assert bad == []


def test_no_test_imports_another():
    """What two tests need is in tests/helpers."""
    files = sorted(Path("tests").rglob("*.py"))
    assert len(files) > 60
    assert [(str(f), n) for f in files for n in imported(f) if n.startswith("tests.test_")] == []


REPORT = Path("tasks/report")
FOLDERS = ("sources", "analysis", "claims", "figures", "render")  # of the report, each importing only leftwards


def report_modules() -> dict[str, set[str]]:
    """Each module of the report, with those of the report that it imports."""
    files = {".".join(path.with_suffix("").parts): path for path in REPORT.rglob("[!_]*.py")}
    return {name: imported(path) & set(files) for name, path in files.items()}


def test_the_report_is_few_modules_on_few_levels():
    modules = report_modules()

    def level(name: str) -> int:
        return 1 + max(map(level, modules[name]), default=0)

    assert len(modules) <= 26
    assert max(map(level, modules)) <= 8


def test_no_function_of_the_report_is_longer_than_40_lines():
    nodes = [(path, node) for path in REPORT.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    functions = [(path, node) for path, node in nodes if isinstance(node, ast.FunctionDef)]
    assert [(str(path), f.name) for path, f in functions if f.end_lineno - f.lineno >= 40] == []


def test_the_report_imports_leftwards():
    def place(module: str) -> int:
        folder = module.split(".")[2]
        return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)

    found = [(name, other) for name, others in report_modules().items() for other in others]
    assert [pair for pair in found if place(pair[1]) > place(pair[0])] == []


def test_help_imports_nothing_heavy():
    code = "import sys; from tasks.__main__ import main; main(['--help']); print(sorted(m for m in sys.modules if m in"
    code += " ('torch', 'pandas', 'matplotlib', 'wandb')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

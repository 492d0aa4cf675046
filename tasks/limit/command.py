"""`python -m tasks limit --config mine.yaml`: how large can this config's batch be before it stops paying?

Any option of `fit` may be given too. It writes an ordinary sweep file and its plan into RUNS/STUDY_limit/limit/, runs
them in rounds as `sweep` does, and stops once the answer is known well enough. The same command goes on where it was
stopped; with more --budget or a higher --precision it goes on from what is there.
"""

import argparse
import json
import math
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from callbacks.convergence_detector import Target
from tasks.sweep.command import Runner, stop_on_sigterm
from tasks.sweep.files import read_sweep
from tasks.sweep.ledger import Ledger
from tasks.sweep.plan import source
from tasks.sweep.pool import Pool, places
from tasks.sweep.table import Display

if TYPE_CHECKING:  # imported once they are needed: with them comes torch
    from tasks.limit.design import Design, Question
    from tasks.limit.known import Known

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(
        prog="python -m tasks limit",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("--target", metavar="T", help="'val/accuracy>=0.75' (default: the config's, else a pilot's)")
    words.add_argument("--budget", metavar="TIME", help="stop after this time, once the pilot has ended: 90s, 30m, 2h")
    words.add_argument("--precision", type=float, default=2.0, metavar="F", help="ends of the interval within (2)")
    words.add_argument("--max-batch", type=int, metavar="N", help="default: a quarter of the training examples")
    words.add_argument("--workers", type=int, metavar="N", help="default: one per GPU, else one per core")
    words.add_argument("--runs", type=Path, metavar="DIR", help="default: runs")
    words.add_argument("--prices", type=Path, metavar="FILE", help="a price table, as configs/prices/example.yaml")
    words.add_argument("--write", type=Path, metavar="DIR", help="only write the sweep and its plan into DIR")
    words.add_argument("--dry-run", action="store_true", help="show the plan, its time and its money; run no study")
    words.add_argument("--status", action="store_true", help="say what is known so far, also while it runs")
    return words


def seconds(text: str | None) -> float:
    """Return a time such as 30m in seconds, infinite for None. Raises ValueError."""
    if text is None:
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"--budget is {text!r}: give a time such as 90s, 30m or 2h")
    return float(found[1]) * UNITS[found[2]]


def read_target(text: str) -> Target:
    """Return the target that a text such as val/accuracy>=0.75 stands for. Raises ValueError."""
    found = re.fullmatch(r"\s*([\w/.-]+?)\s*(>=|<=|≥|≤)\s*([-+.\de]+)\s*", text)
    try:
        metric, sign, value = found.groups() if found else ("", "", "")
        return Target(metric, "max" if sign in (">=", "≥") else "min", float(value))
    except ValueError as error:
        raise ValueError(f"--target is {text!r}: write it as 'val/accuracy>=0.75' or 'val/loss<=0.5'") from error


def check(options: argparse.Namespace) -> None:
    """Raise ValueError where an option makes no sense."""
    if not options.precision > 1:
        raise ValueError(f"--precision is {options.precision:g}: give more than 1, such as 2")
    for name, value in {"--max-batch": options.max_batch, "--workers": options.workers}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: give at least 1")


def limit(options: argparse.Namespace, args: list[str]) -> int:
    """Answer the question; 0 once it is answered as well as asked, or as well as it can be. Raises ValueError."""
    check(options)
    budget = seconds(options.budget)
    deadline = time.monotonic() + budget
    if options.runs is not None:
        args = [*args, f"--trainer.default_root_dir={options.runs}"]
    from tasks.limit import plan  # here and not above: torch is slow to import, and --help should not wait for it

    threads = places(options.workers)[0].threads  # the pilot runs as the cells of the study will
    asked = plan.asked(args, options.target and read_target(options.target), options.max_batch, threads)
    if options.status:
        print(Study(asked.runs, asked.folder, options).now(asked.target))
        return 0
    if options.dry_run:
        print(plan.forecast(asked, options.prices, len(places(options.workers))))
        return 0
    question, said = plan.question(asked)
    for line in said:
        print(line, file=sys.stderr)
    if options.write:
        from tasks.limit.design import first_design, write

        path = write(options.write, question, first_design(question))
        print(f"python -m tasks sweep {path}")
        return 0
    return Study(asked.runs, asked.folder, options).answer(question, deadline)


@dataclass
class Study:
    """The rounds of one question."""

    runs: Path
    folder: Path
    options: argparse.Namespace

    def runner(self, path: Path) -> Runner:
        """Return the cells of the sweep file as they stand; a round's doubts are what the next one is for."""
        return Runner([source(read_sweep(path))], Ledger(self.runs), doubts=False)

    @staticmethod
    def directories(runner: Runner) -> list[Path]:
        """Return where the runs that have ended are."""
        return [Path(state.entry["directory"]) for state in runner.states.values() if state.record]

    def now(self, target: Target | None) -> str:
        """Return what is known of the target, from the files as they are. Raises ValueError if they ask for another."""
        from tasks.limit.known import NOTHING, known

        paths = [p for p in self.folder.glob("*.yaml") if not p.name.endswith(".plan.yaml")]
        if not paths:
            return told(NOTHING)
        (asked,) = json.loads(read_sweep(paths[0]).content["parameters"]["convergence.targets"]["value"])
        studied = Target.parse(asked)
        if target not in (None, studied):
            sign = ">=" if studied.direction == "max" else "<="
            raise ValueError(f"{paths[0]} asks for --target '{studied.metric}{sign}{studied.value:g}': give that one")
        return told(known(self.directories(self.runner(paths[0]))))

    def answer(self, question: "Question", deadline: float) -> int:
        """Run round after round until the answer is known well enough or the budget is spent."""
        from tasks.limit.design import met, next_design, resumed, write
        from tasks.limit.known import known, page

        design, rooms, pool = resumed(self.folder, question), places(self.options.workers), None
        runner: Runner | None = None
        try:
            while True:
                path = write(self.folder, question, design)
                runner = self.runner(path)
                if runner.left():
                    pool = pool or Pool(rooms, self.runs)
                    with Display(len(rooms), runner.grows, sys.stderr) as display:
                        runner.run(pool, display, deadline)
                found = known(self.directories(runner))
                spent = bool(runner.left())
                following = None if spent else next_design(design, found, question, self.options.precision)
                if following is None:
                    break
                print(f"so far: {found.sentence}\nnext: {step_of(design, following)}", file=sys.stderr)
                design = following
        except BaseException:
            if runner is not None:
                print(told(known(self.directories(self.runner(path)))), file=sys.stderr)
            raise
        finally:
            if pool is not None and runner is not None:
                end(pool, runner)
        text = page(self.directories(runner), self.folder / "report") if found.steps else ""
        print(told(found))
        print(ending(spent, met(found, self.options.precision), self.options))
        print(text.strip().splitlines()[-1] if text else "")
        return 0


def end(pool: Pool, runner: Runner) -> None:
    """End the workers; what they were running is kept and goes on another time."""
    busy = pool.running()
    pool.close()
    for cell in busy:
        runner.ledger.mark_dead(cell, "interrupted")


def step_of(before: "Design", after: "Design") -> str:
    """Return in words what a round adds."""
    new = [str(size) for size in after.sizes if size not in before.sizes]
    return f"batch {' and '.join(new)}" if new else "more seeds where the steps scatter"


def ending(spent: bool, precise: bool, options: argparse.Namespace) -> str:
    """Return why the study stops here, and what goes on."""
    if precise:
        return f"The ends of the interval lie within a factor of {options.precision:g}."
    if spent:
        return f"The budget of {options.budget} is spent: the same command goes on from here."
    return "It takes no more batch sizes and seeds: choose a target farther from the noise of its metric, or more data."


def told(found: "Known") -> str:
    """Return what is known as a table and a sentence."""
    lines = [f"{'batch':>8}{'rate':>11}{'arrived':>10}{'steps':>10}{'examples':>12}{'x fewest':>10}"]
    fewest = min((size * steps for size, steps in found.steps.items()), default=math.inf)
    for size, steps in sorted(found.steps.items()):
        row = f"{size:>8,}{found.rates[size]:>11.4g}{found.arrived[size]:>10}"
        lines.append(
            row + (f"{steps:>10,.0f}{steps * size:>12,.0f}{steps * size / fewest:>10.2f}" * (steps < math.inf))
        )
    doubts = [f"Not sure yet: {'; '.join(found.doubts)}."] if found.doubts else []
    return "\n".join([*(lines if found.steps else []), found.sentence, *doubts])


def main(argv: Sequence[str] | None = None) -> int:
    """Answer; 2 for a user's mistake, 1 where a run failed, 130 or 143 after a signal."""
    from tasks.errors import FailedError, UserError

    options, args = parser().parse_known_args(argv)
    with stop_on_sigterm():
        try:
            return limit(options, args)
        except (UserError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (FailedError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return getattr(error, "status", 1)
        except (KeyboardInterrupt, SystemExit) as stopped:
            print("stopped: the same command goes on from here", file=sys.stderr)
            # of the pilot, Lightning ends Ctrl-C with a status of 1 and SIGTERM with an exception of its own
            ctrl_c = isinstance(stopped, KeyboardInterrupt) or (type(stopped) is SystemExit and stopped.code == 1)
            return 128 + (signal.SIGINT if ctrl_c else signal.SIGTERM)

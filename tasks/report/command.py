"""`python -m tasks report SOURCE... --out DIR`: from run directories to a page, figures, tables and JSON."""

import argparse
import json
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(prog="python -m tasks report", description=__doc__)
    words.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="a folder of runs, an MLPerf reference-convergence file, or a W&B export (.csv, .json)",
    )
    words.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    words.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="TARGET",
        help="choose targets again from the curves: 'val/accuracy>=0.8', 'trainset/loss<=0.5', "
        "'trainset/loss:golmant', 'val/accuracy:quantile=0.5', 'val/accuracy:baseline=0.95' (repeatable)",
    )
    words.add_argument(
        "--figure",
        action="append",
        default=[],
        metavar="NAME",
        help="draw only this figure: golmant-1 to golmant-5, you-optimizers, you-recipe, you-diffusion, "
        "time-and-cost, noise-scale, noise-along, curvature, cost, tuning-budget (repeatable)",
    )
    words.add_argument(
        "--cluster",
        type=Path,
        metavar="FILE",
        help="the machine to project time and cost on: YAML such as configs/cluster/ethernet.yaml",
    )
    words.add_argument(
        "--wandb",
        action="store_true",
        help="also log pages, tables and figures as a W&B artifact (of the sweep in WANDB_SWEEP_ID, if set)",
    )
    return words


def main(argv: list[str] | None = None) -> int:
    """Make the report; give the exit status."""
    options = parser().parse_args(argv)
    # Here and not above: the libraries are slow to import, and --help should not wait for them.
    from tasks.report.make import make_figures, make_report

    try:
        if options.figure:
            print(make_figures(options.sources, options.out, options.target, options.figure, options.cluster))
        else:
            text = make_report(options.sources, options.out, options.target, options.cluster)
            print(wandb_line(options.out) + text if options.wandb else text)
    except (ValueError, OSError) as error:  # OSError: of --out, or of a source that may not be read
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


def wandb_line(out: Path) -> str:
    """Log the report to W&B; give the line that says so."""
    from tasks.report.wandb_log import log_report

    names = {w["name"].split(":")[0] for w in json.loads((out / "summary.json").read_text())["workloads"]}
    return log_report(out, sorted(names)) + "\n\n"

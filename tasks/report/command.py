"""`python -m tasks report SOURCE... --out DIR`: from run directories to a page, figures, tables and JSON."""

import argparse
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    words = argparse.ArgumentParser(prog="python -m tasks report", description=__doc__)
    words.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="a folder of runs")
    words.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="TARGET",
        help="choose targets again from the curves: 'val/accuracy>=0.8', 'trainset/loss<=0.5', "
        "'trainset/loss:golmant', 'val/accuracy:quantile=0.5', 'val/accuracy:baseline=0.95' (repeatable)",
    )
    words.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    return words


def main(argv: list[str] | None = None) -> int:
    """Make the report; give the exit status."""
    options = parser().parse_args(argv)
    # Here and not above: the libraries are slow to import, and --help should not wait for them.
    from tasks.report.make import make_report

    try:
        print(make_report(options.sources, options.out, options.target))
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0

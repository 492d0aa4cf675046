"""`python -m tasks VERB ...`: chooses the verb; nothing heavy is imported before it is known what for."""

import sys
from collections.abc import Sequence

HELP = """usage: python -m tasks VERB ...

  fit       train one run:            python -m tasks fit --config configs/image_classification/fashion_mnist.yaml
  validate  measure its checkpoint:   python -m tasks validate --config runs/STUDY/RUN/config.yaml
  test      on the test split:        python -m tasks test --config runs/STUDY/RUN/config.yaml
  predict   write its predictions:    python -m tasks predict --config runs/STUDY/RUN/config.yaml
  limit     how large can the batch be? python -m tasks limit --config mine.yaml --target 'val/accuracy>=0.75'
  sweep     run a grid of runs:       python -m tasks sweep configs/sweeps/demo/*.yaml
  report    what the runs say:        python -m tasks report runs/STUDY --out report

`python -m tasks VERB --help` shows a verb's options."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit status: 2 for a user's mistake, 1 for a failed run."""
    if args is None:
        from tasks.streams import keep_standard_streams

        keep_standard_streams()
    args = list(sys.argv[1:] if args is None else args)
    verb = args[0] if args else "--help"
    if verb in ("-h", "--help"):
        print(HELP)
        return 0
    if verb == "report":
        from tasks.report.command import main as report

        return report(args[1:])
    if verb == "sweep":
        from tasks.sweep.command import main as sweep

        return sweep(args[1:])
    if verb == "limit":
        from tasks.limit.command import main as limit

        return limit(args[1:])
    if verb in ("fit", "validate", "test", "predict"):
        from tasks.cli import main as run

        return run(args)
    print(f"error: no verb {verb!r}: choose among fit, validate, test, predict, limit, sweep, report", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while the libraries are loaded
        sys.exit(130)

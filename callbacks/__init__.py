"""What watches a run: when to evaluate, when to stop, what to measure and to write down."""

"""What the tests share: made-up data, runs, models and servers."""

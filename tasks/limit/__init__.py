"""From a config to the answer: writes an ordinary sweep and its plan, runs it in rounds, and says what is known."""

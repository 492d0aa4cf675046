"""From the analysis to verdicts on the claims."""

"""From the analysis to figures and the form of tables."""

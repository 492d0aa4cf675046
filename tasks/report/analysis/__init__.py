"""From runs to curves, critical batch sizes and answers."""

"""Sweeps: many runs of one W&B sweep file on this machine, stage after stage."""

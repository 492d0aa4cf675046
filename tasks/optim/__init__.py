"""Optimizers, and how learning rate and averages follow the batch size."""

"""Data sets, handed out as exact global batches."""

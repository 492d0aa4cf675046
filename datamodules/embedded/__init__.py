"""The small real data that comes with the package (README.md: where it is from, its licences)."""

"""The report: from runs to a page, figures, tables and JSON (README.md beside this file)."""

"""From all of it to the page, Markdown and JSON."""

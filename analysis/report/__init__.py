"""The report command: README, docs, HTML page and LaTeX table of a study."""

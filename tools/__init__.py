"""Scripts for maintainers, run from the repository's root: `python -m tools.make_sample`."""

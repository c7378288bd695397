"""Measures lesionforge: `make bench`, or `python -m lesionforge.benchmarks` in a checkout installed as editable."""

"""Benchmarks of fastattn: `python -m benchmarks --help`; benchmarks/README.md says how they measure."""

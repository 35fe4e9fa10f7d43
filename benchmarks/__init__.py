"""Named workloads timed against other libraries, each speed beside its error: ``python -m benchmarks --help``."""

"""Random problems for each op, shared by the tests and the benchmarks."""

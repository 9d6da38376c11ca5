"""Shared by the tests, the benches and the demo: test cases, comparisons, shapes, models."""

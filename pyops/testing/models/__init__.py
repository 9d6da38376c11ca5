"""Models with known accuracy that tests, benches and the demo use."""

"""One bench per op stem; a new file is a new bench."""

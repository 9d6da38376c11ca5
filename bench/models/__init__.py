"""One bench per model; a new file is a new bench."""

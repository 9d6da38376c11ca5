"""Pruned models."""

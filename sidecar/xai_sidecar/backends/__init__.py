"""Backends: what runs models."""

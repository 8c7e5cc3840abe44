"""Sweeps: what is searched, and what is tried next."""

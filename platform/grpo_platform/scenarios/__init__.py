"""Suites that a model's versions must pass: written, kept under its name, run and replayed."""

"""Loaded models in memory, and predictions from them."""

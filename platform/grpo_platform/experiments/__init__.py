"""Experiments: one configuration, trained with several seeds."""

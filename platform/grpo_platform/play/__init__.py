"""Policies at play: watched while they train, steered, wound back, branched and explained."""

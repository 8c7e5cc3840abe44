"""Policies under test: start states, perturbations and what must hold, and how they are played."""

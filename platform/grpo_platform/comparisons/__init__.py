"""Comparisons: two or more of experiments, jobs, versions and sweeps' bests, with an interval."""

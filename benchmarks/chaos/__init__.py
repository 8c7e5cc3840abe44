"""Chaos: hundreds of random faults over real servers, workers and stores.

`python -m benchmarks.chaos --faults 200 --jobs 30 --seed 0` prints the faults by kind and what was
lost, doubled, left running or changed by them; each of these figures must be 0.
"""

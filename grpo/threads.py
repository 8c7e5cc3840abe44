"""How many threads numpy and torch compute with."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["fitting_threads", "math_threads"]

_SMALL = 500_000  # weights, below which a second thread costs more than it brings


@functools.cache
def math_threads() -> ThreadpoolController:
    """The threads of the libraries that numpy and torch compute with, which are loaded by now.

    Looked for once, best in a process that others are forked from: it takes milliseconds.
    """
    return ThreadpoolController()


@contextmanager
def fitting_threads(n_weights: int) -> Iterator[None]:
    """Compute on one thread where the networks are small.

    There a second one only waits for the first, and on a machine that does other things as well
    both wait for a processor: training is then many times slower.

    Args:
        n_weights: of the networks.
    """
    if n_weights >= _SMALL:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with math_threads().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)

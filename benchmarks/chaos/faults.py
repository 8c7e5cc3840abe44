"""The faults, each a function that breaks something and, where it must, mends it again."""

import contextlib
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import psutil
from mlflow.tracking import MlflowClient

from benchmarks.chaos.world import Server, World
from grpo_platform.core.states import TERMINAL
from grpo_platform.tracking.exceptions import store_errors
from grpo_platform.tracking.records import JobRecord

_STORM_READY: Final = 0.5
"""Share of the servers in a storm that come to take jobs up before they are killed."""

_STORM_SECONDS: Final = 3.0

Fault = Callable[[World, random.Random], bool]
"""Returns whether it could be done; False: nothing happened, try again a little later."""


def kill_worker(world: World, rng: random.Random) -> bool:
    """Kill -9 of a worker."""
    return _signal_one(world.workers(), signal.SIGKILL, rng)


def kill_trainer(world: World, rng: random.Random) -> bool:
    """Kill -9 of a trainer process."""
    trainers = []
    for worker in world.workers():
        with contextlib.suppress(psutil.Error):
            trainers += worker.children()
    return _signal_one(trainers, signal.SIGKILL, rng)


def terminate_worker(world: World, rng: random.Random) -> bool:
    """SIGTERM to a worker."""
    return _signal_one(world.workers(), signal.SIGTERM, rng)


def freeze_worker(world: World, rng: random.Random) -> bool:
    """SIGSTOP to a worker, SIGCONT a little later."""
    workers = world.workers()
    if not workers:
        return False
    victim = rng.choice(workers)
    with contextlib.suppress(psutil.Error):
        victim.suspend()
        time.sleep(rng.uniform(0.5, 4.0))
        victim.resume()
    return True


def kill_forkserver(world: World, rng: random.Random) -> bool:
    """Kill -9 of the process that forks workers."""
    found = [world.forkserver_of(server) for server in world.servers]
    return _signal_one([process for process in found if process], signal.SIGKILL, rng)


def kill_server(world: World, rng: random.Random) -> bool:
    """Kill -9 of a server, and a new start."""
    return _restart(world, rng.choice(world.servers), signal.SIGKILL, rng)


def terminate_server(world: World, rng: random.Random) -> bool:
    """SIGTERM to a server, and a new start."""
    return _restart(world, rng.choice(world.servers), signal.SIGTERM, rng)


def kill_starting_server(world: World, rng: random.Random) -> bool:
    """Kill -9 of a server, and of the next one while it starts and takes jobs up."""
    return _storm(world, rng, kills=2)


def restart_storm(world: World, rng: random.Random) -> bool:
    """Kill -9 of a server, and again of each that follows, eight in all."""
    return _storm(world, rng, kills=8)


def kill_everything(world: World, rng: random.Random) -> bool:
    """Kill -9 of a server, its forkserver and all workers at once, and a new start."""
    server = rng.choice(world.servers)
    forkserver = world.forkserver_of(server)
    _kill([*world.workers(), *([forkserver] if forkserver else [])])
    return _restart(world, server, signal.SIGKILL, rng)


def power_cut(world: World, rng: random.Random) -> bool:
    """Kill -9 of all that runs, and a new start of every server."""
    found = [world.forkserver_of(server) for server in world.servers]
    found += [world.ui_of(server) for server in world.servers]
    workers = world.workers()
    for server in world.servers:
        if server.process is not None:
            server.process.kill()
    _kill([*workers, *(process for process in found if process)])
    for server in world.servers:
        if server.process is not None:
            server.process.wait(60)
    time.sleep(rng.uniform(0.0, 2.0))
    for server in world.servers:
        world.start(server)
    return True


def kill_ui(world: World, rng: random.Random) -> bool:
    """Kill -9 of the MLflow UI and its children: one that is left would answer for the next."""
    found = [process for server in world.servers if (process := world.ui_of(server))]
    if not found:
        return False
    victim = rng.choice(found)
    with contextlib.suppress(psutil.Error):
        _kill([*victim.children(recursive=True), victim])
    return True


def stop_and_resume(world: World, rng: random.Random) -> bool:
    """A user stops a job, and takes it up again."""
    store = world.store()
    job_id = _one_of([*store.running(), *store.queued(100)], rng)
    return job_id is not None and _stop_and_resume(world, job_id, rng)


def stop_after_submit(world: World, rng: random.Random) -> bool:
    """A user stops a job as soon as it is accepted, and takes it up again."""
    return _stop_and_resume(world, world.submit(), rng)


def stop_after_resume(world: World, rng: random.Random) -> bool:
    """A user stops a job, takes it up again, and stops it again at once."""
    job_id = _one_of(world.store().running(), rng)
    return (
        job_id is not None
        and _stop_and_resume(world, job_id, rng)
        and _stop_and_resume(world, job_id, rng)
    )


def stop_after_claim(world: World, rng: random.Random) -> bool:
    """A user stops a job in the moment in which a worker has claimed it."""
    job_id = _one_of(world.store().running(), rng)
    if job_id is None or not _stop_and_resume(world, job_id, rng):
        return False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = world.store().get(job_id)
        if job.claimed_by is not None or job.status in TERMINAL:
            break
        time.sleep(0.005)
    return _stop_and_resume(world, job_id, rng)


def lock_database(world: World, rng: random.Random) -> bool:
    """Someone holds the database's write lock."""
    with contextlib.closing(sqlite3.connect(world.database, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(rng.uniform(1.0, 5.0))
        connection.rollback()
    return True


def hide_database(world: World, rng: random.Random) -> bool:
    """The database's folder vanishes and returns."""
    if not all(server.is_settled() for server in world.servers):
        return False  # a server that starts now would make a new database
    folder, away = world.database.parent, world.folder / "away"
    folder.rename(away)
    time.sleep(rng.uniform(0.5, 4.0))
    away.rename(folder)
    return True


def hide_artifacts(world: World, rng: random.Random) -> bool:
    """The root of the artifacts vanishes and returns, as a volume that is not mounted."""
    if not all(server.is_settled() for server in world.servers):
        return False
    away = world.folder / "artifacts-away"
    world.artifacts.rename(away)
    time.sleep(rng.uniform(0.5, 4.0))
    away.rename(world.artifacts)  # refused where somebody made it anew
    return True


def set_clock(world: World, rng: random.Random) -> bool:
    """The clock of every process is set, by up to two hours, and stays so."""
    world.clock.write_text(str(rng.uniform(-7200.0, 7200.0)))
    return True


def fill_disk(world: World, rng: random.Random) -> bool:
    """The disk is full for a while."""
    if not world.has_small_disk:
        return False
    ballast = world.folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
    time.sleep(rng.uniform(1.0, 4.0))
    ballast.unlink()
    return True


def delete_queued_run(world: World, rng: random.Random) -> bool:
    """Someone deletes a waiting job's run in MLflow."""
    return _delete(world, world.store().queued(100), rng)


def delete_running_run(world: World, rng: random.Random) -> bool:
    """Someone deletes a running job's run in MLflow."""
    return _delete(world, world.store().running(), rng)


FAULTS: Final[dict[Fault, int]] = {
    kill_worker: 6, kill_trainer: 5, terminate_worker: 3, freeze_worker: 2, kill_forkserver: 3,
    kill_server: 2, terminate_server: 2, kill_starting_server: 2, restart_storm: 1,
    kill_everything: 2, power_cut: 1, kill_ui: 1, stop_and_resume: 3, stop_after_submit: 2,
    stop_after_resume: 2, stop_after_claim: 2, lock_database: 3, hide_database: 2,
    hide_artifacts: 2, set_clock: 2, fill_disk: 2, delete_queued_run: 1, delete_running_run: 1,
}  # fmt: skip
"""How often each comes, in relation to the others."""


def plan(seed: int, count: int, *, has_small_disk: bool) -> list[Fault]:
    """Which faults come, in order: each kind once, and then by their shares in `FAULTS`.

    Args:
        seed: the same seed gives the same plan.
        count: number of faults.
        has_small_disk: whether the disk may be filled.
    """
    rng = random.Random(seed)
    shares = {fault: n for fault, n in FAULTS.items() if has_small_disk or fault is not fill_disk}
    return list(islice(_dealt(shares, rng), count))


def _dealt(shares: dict[Fault, int], rng: random.Random) -> Iterable[Fault]:
    cards = list(shares)
    while True:
        rng.shuffle(cards)
        yield from cards
        cards = [fault for fault, share in shares.items() for _ in range(share)]


def _signal_one(processes: list[psutil.Process], number: int, rng: random.Random) -> bool:
    if not processes:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        rng.choice(processes).send_signal(number)
    return True


def _restart(world: World, server: Server, number: int, rng: random.Random) -> bool:
    if server.process is None:
        return False
    server.process.send_signal(number)
    server.process.wait(60)
    time.sleep(rng.uniform(0.0, 2.0))
    world.start(server)
    return True


def _storm(world: World, rng: random.Random, *, kills: int) -> bool:
    """Kill a server again and again, from before it listens until after it has taken jobs up."""
    server = rng.choice(world.servers)
    for _ in range(kills):
        if not _restart(world, server, signal.SIGKILL, rng):
            return False
        if rng.random() < _STORM_READY:
            with contextlib.suppress(RuntimeError):
                world.wait_until_ready(server)
        time.sleep(rng.uniform(0.0, _STORM_SECONDS))
    return True


def _stop_and_resume(world: World, job_id: str, rng: random.Random) -> bool:
    time.sleep(rng.choice((0.0, 0.0, 0.05, 0.5)))
    if world.call("POST", f"/training/{job_id}/stop").status_code != 200:
        return False
    deadline = time.monotonic() + 60
    while world.store().get(job_id).status not in TERMINAL and time.monotonic() < deadline:
        time.sleep(0.02)
    world.call("POST", f"/training/{job_id}/resume")
    return True


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _delete(world: World, records: list[JobRecord], rng: random.Random) -> bool:
    job_id = _one_of(records, rng)
    if job_id is None:
        return False
    with store_errors(job_id):
        MlflowClient(tracking_uri=world.tracking_uri).delete_run(job_id)
    world.deleted.add(job_id)
    return True


def _one_of(records: list[JobRecord], rng: random.Random) -> str | None:
    return rng.choice(records).job_id if records else None

"""What an attempt writes, and when: each point once, however often the store is away."""

import tempfile

import pytest

from grpo_platform.core.errors import StoreError
from grpo_platform.core.names import Metric, Tag
from grpo_platform.jobs.run_writer import RunWriter, WorkerLog, read_log
from grpo_platform.tracking.reporter import Point
from tests.service.tracking_support import prepare, request
from tests.service.worker_support import ScriptedClock, TroubledStore

KEY, OTHER = Metric.EPISODE_RETURN, "train/approx_kl"


class World:
    def __init__(self, place, folder, attempt=1) -> None:
        self.jobs = TroubledStore(place.tracking_uri, place.experiment_id)
        self.job_id = self.jobs.create(request(total_timesteps=600)).job_id
        self.folder = folder
        self.clock = ScriptedClock()
        self.writer = RunWriter(self.jobs, self.job_id, attempt, WorkerLog(folder), self.clock)

    def again(self, attempt) -> "World":
        """The same job, written by a later attempt."""
        self.writer = RunWriter(self.jobs, self.job_id, attempt, WorkerLog(self.folder), self.clock)
        return self

    def add(self, *steps, key=KEY) -> None:
        made = [Point(key, float(step), step, int(1000 * self.clock.time) + step) for step in steps]
        self.writer.add(made, steps[-1], steps[-1] / 100)

    def checkpoint(self, timesteps):
        path = self.folder / f"{timesteps}.npz"
        path.write_text(str(timesteps))
        self.writer.add_checkpoint(path, timesteps)
        return path

    def due(self) -> float:
        """Write when it is due; returns the seconds until then."""
        seconds = self.writer.seconds_until_due()
        self.clock.time += seconds
        self.writer.write_due()
        return seconds

    def steps(self, key=KEY):
        return [point.step for point in self.jobs.history(self.job_id, key, 1000)]

    @property
    def record(self):
        return self.jobs.get(self.job_id)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def one(place, tmp_path):
    return World(place, tmp_path)


def test_what_comes_quickly_is_written_together_with_how_far_it_is(one):
    one.add(100)
    assert one.due() == 0.0
    assert (one.steps(), one.record.current_timesteps, one.record.seconds) == ([100], 100, 1.0)
    for step in (200, 300):
        one.add(step)
        one.writer.write_due()
    assert one.steps() == [100]
    assert one.due() == pytest.approx(0.7)
    assert (one.steps(), one.record.current_timesteps, one.record.seconds) == (
        [100, 200, 300], 300, 3.0,
    )  # fmt: skip


def test_where_nothing_is_new_only_the_log_is_looked_at(one):
    one.due()
    assert one.due() == pytest.approx(2.0)
    assert one.record.current_timesteps == 0


def test_a_store_that_is_away_is_tried_ever_more_slowly_and_loses_nothing(one):
    one.due()
    one.jobs.away()
    pauses = []
    for step in range(100, 1000, 100):
        one.add(step)
        pauses.append(one.due())
    assert pauses[1:] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    one.jobs.back()
    one.due()
    assert one.steps() == list(range(100, 1000, 100))
    one.add(1000)
    assert one.due() == pytest.approx(0.7), "as quick as before"


def test_a_store_that_refuses_is_not_tried_again(one):
    one.add(100)
    one.jobs.refuse()
    with pytest.raises(StoreError, match="it refuses"):
        one.due()


def test_a_later_attempt_skips_what_is_written_key_by_key(one):
    one.add(100, 200, 300)
    one.add(100, key=OTHER)
    one.due()
    one.clock.time += 60.0
    later = one.again(2)
    later.writer.continue_at(300, 3.0)
    later.add(200, 300, 400)
    later.add(200, 300, key=OTHER)
    later.due()
    assert later.steps() == [100, 200, 300, 400]
    assert later.steps(OTHER) == [100, 200, 300]
    assert later.record.current_timesteps == 400


def test_progress_never_goes_back_to_what_a_checkpoint_repeats(one):
    one.writer.continue_at(300, 3.0)
    one.jobs.set_tags(one.job_id, {Tag.TIMESTEPS: "300"})
    one.add(200)
    one.due()
    assert one.record.current_timesteps == 300


def test_a_checkpoint_counts_after_the_points_that_it_relies_on(one):
    one.add(100)
    path = one.checkpoint(100)
    one.jobs.away()
    one.due()
    assert path.exists()
    one.jobs.back()
    one.due()
    assert one.steps() == [100]
    assert "/000000000100-1-" in one.record.checkpoint
    assert not path.exists()


def test_of_the_checkpoints_that_wait_only_the_newest_is_stored(one):
    older, newer = one.checkpoint(100), one.checkpoint(200)
    assert not older.exists()
    one.writer.flush()
    assert not newer.exists()
    assert "/000000000200-1-" in one.record.checkpoint
    assert len(one.jobs.list_artifacts(one.job_id, "checkpoints")) == 1


def test_the_log_is_stored_where_it_has_changed(one):
    one.due()
    assert read_log(one.jobs, one.job_id) == b""
    with (one.folder / "worker.log").open("a") as file:
        file.write("a line\n")
    one.due()
    assert read_log(one.jobs, one.job_id) == b"a line\n"


def test_the_log_is_stored_though_the_temporary_folder_is_taken_away_meanwhile(one, monkeypatch):
    temporary, upload = one.folder / "tmp", one.jobs.upload
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    taken = []

    def take_away_once(*args, **kwargs):
        if not taken:
            taken.append(temporary.rename(one.folder / "taken"))
        return upload(*args, **kwargs)

    monkeypatch.setattr(one.jobs, "upload", take_away_once)
    with (one.folder / "worker.log").open("a") as file:
        file.write("a line\n")
    one.due()
    assert taken
    assert read_log(one.jobs, one.job_id) == b"a line\n"


def test_a_file_that_is_taken_away_is_not_said_to_be_missing_in_the_store(one, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        one.jobs.upload(one.job_id, tmp_path / "gone.npz", verify=True)

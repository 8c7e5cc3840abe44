"""What people look at in a run: figure, video, description, dataset, provenance."""

import hashlib
import json
import shlex
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from grpo.config import resolve_config
from grpo.envs import check_environment
from grpo.policies import MlpPolicy
from grpo.trainer import policy_spec
from grpo_platform.core.names import Metric, Tag
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus
from grpo_platform.jobs.run_writer import read_log
from grpo_platform.tracking import video
from grpo_platform.tracking.artifacts import draw_learning_curve, illustrate
from grpo_platform.tracking.provenance import (
    code_version,
    environment_of,
    provenance_tags,
    reproduce_command,
)
from grpo_platform.tracking.records import differing, params_of, parse_param
from grpo_platform.tracking.reporter import HistoryPoint, Point, thin
from grpo_platform.tracking.video import VideoError, record_episodes
from tests.algorithm.toy_environments import Thermostat, registered
from tests.service.tracking_support import jobs_of, prepare, request

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


def policy_for(env_name, **env_kwargs):
    config = resolve_config(env_name=env_name, env_kwargs=env_kwargs, seed=1)
    return MlpPolicy(policy_spec(check_environment(env_name, env_kwargs), config), 1)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return jobs_of(prepare(tmp_path_factory.mktemp("artifacts")))


@pytest.fixture(scope="module")
def illustrated(jobs, tmp_path_factory):
    job_id = jobs.create(request(total_timesteps=1_000, seed=3, model_name="described")).job_id
    jobs.start(job_id, "w")
    points = [Point(Metric.REWARD, float(i % 7), i, 1_000 + i) for i in range(1, 1_001, 10)]
    points += [Point(Metric.EPISODE_RETURN, i / 10, i, 1_000 + i) for i in range(1, 1_001, 100)]
    points += [Point(Metric.TIMESTEPS, 1_000.0, 1_000, 2_000)]
    for key, value in (
        (Metric.EVAL_MEAN, 321.5), (Metric.EVAL_STD, 7.0), (Metric.EVAL_IQM, 333.25),
        (Metric.EVAL_CI_LOW, 300.0), (Metric.EVAL_CI_HIGH, 350.0),
    ):  # fmt: skip
        points.append(Point(key, value, 1_000, 2_000))
    jobs.log_points(job_id, points)
    jobs.set_tags(job_id, {Tag.MODEL_VERSION: "4"})
    jobs.finish(job_id, JobStatus.COMPLETED)
    illustrate(jobs, job_id, policy_for("CartPole-v1"), tmp_path_factory.mktemp("work"), 500)
    return job_id


def test_a_completed_job_shows_curve_video_and_description(jobs, illustrated, tmp_path):
    assert jobs.list_artifacts(illustrated) == ["episodes.mp4", "learning_curve.png"]
    curve = jobs.download(illustrated, "learning_curve.png", tmp_path)
    assert curve.read_bytes().startswith(PNG)
    client = MlflowClient(tracking_uri=jobs.tracking_uri)
    note = client.get_run(illustrated).data.tags["mlflow.note.content"]
    for text in (
        "mean return 321.5** (95 % interval 300.0 to 350.0)", "1,000 timesteps", "seed 3",
        f"![Learning curve](get-artifact?path=learning_curve.png&run_uuid={illustrated})",
        f"get-artifact?path=episodes.mp4&run_uuid={illustrated}",
        "mlflow models serve -m models:/described/4 --env-manager local",
        reproduce_command(jobs.get(illustrated).request),
        f"grpo-platform reproduce {illustrated}",
    ):  # fmt: skip
        assert text in note


def test_the_video_is_h264_with_frames_that_move(jobs, illustrated, tmp_path):
    video = jobs.download(illustrated, "episodes.mp4", tmp_path)
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = done.stderr.decode()
    assert "Video: h264" in about
    assert "yuv420p" in about
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, 400, 600, 3)
    assert len(frames) >= 30
    assert len({hashlib.sha256(frame).digest() for frame in frames}) > 5
    assert min(frame.std() for frame in frames) > 1


def test_the_first_episodes_of_the_evaluation_are_filmed_exactly(tmp_path):
    policy = policy_for("CartPole-v1")
    counts = [
        record_episodes(policy, "CartPole-v1", {}, seeds, tmp_path / "v.mp4", 500)
        for seeds in ([5], [6], [5, 6])
    ]
    assert counts[2] == counts[0] + counts[1]


def test_a_film_ends_where_it_is_long_enough_and_none_is_made_of_no_frames(jobs, tmp_path):
    pendulum = policy_for("Pendulum-v1")
    assert record_episodes(pendulum, "Pendulum-v1", {}, [1, 2], tmp_path / "v.mp4", 7) == 7
    job_id = jobs.create(request()).job_id
    jobs.start(job_id, "w")
    assert illustrate(jobs, job_id, policy_for("CartPole-v1"), tmp_path, 0) == [
        "learning_curve.png"
    ]


def test_continuous_actions_are_filmed(tmp_path):
    frames = record_episodes(
        policy_for("Pendulum-v1"), "Pendulum-v1", {}, [1], tmp_path / "v.mp4", 500
    )
    assert frames == 200 + 1 + 9


# the viewer that cannot be made complains once more when it is collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mujoco_is_filmed_without_a_display_or_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", "")
    played = (
        policy_for("InvertedPendulum-v5"),
        "InvertedPendulum-v5",
        {},
        [1],
        tmp_path / "v.mp4",
        3,
    )
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(VideoError, match="install libegl1 or libosmesa6"):
        record_episodes(*played)
    monkeypatch.setenv("MUJOCO_GL", "")
    try:
        assert record_episodes(*played) == 3
    except VideoError as error:  # no library, or nothing that it could draw by
        pytest.skip(str(error))


@pytest.mark.parametrize("whole", [False, True])
def test_scalars_and_whole_numbers_are_filmed(tmp_path, whole):
    """As the environment declares them: it asserts that its action space contains them."""
    kwargs = {"max_episode_steps": 20, "kwargs": {"whole": whole}}
    with registered(Thermostat, **kwargs) as env_name:
        frames = record_episodes(policy_for(env_name), env_name, {}, [1], tmp_path / "v.mp4", 500)
    assert frames == 20 + 1 + 9


def test_without_its_extra_a_film_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(VideoError, match=r"pip install 'grpo-platform\[video\]'"):
        record_episodes(policy_for("CartPole-v1"), "CartPole-v1", {}, [1], tmp_path / "v.mp4", 5)


def test_what_cannot_be_drawn_is_left_out(jobs, tmp_path, monkeypatch):
    with pytest.raises(VideoError, match="Nowhere-v1"):
        record_episodes(policy_for("CartPole-v1"), "Nowhere-v1", {}, [1], tmp_path / "v.mp4", 500)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    job_id = jobs.create(request()).job_id
    jobs.start(job_id, "w")
    illustrate(jobs, job_id, policy_for("CartPole-v1"), tmp_path, 500)
    assert jobs.list_artifacts(job_id) == ["learning_curve.png"]
    client = MlflowClient(tracking_uri=jobs.tracking_uri)
    note = client.get_run(job_id).data.tags["mlflow.note.content"]
    assert "episodes.mp4" not in note
    assert "not evaluated" in note


def test_a_curve_without_points_is_still_a_figure(tmp_path):
    draw_learning_curve({}, "empty", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)


def test_thinning_keeps_both_ends():
    points = [HistoryPoint(i, float(i), i) for i in range(1_000)]
    for most in (2, 3, 10, 999):
        kept = thin(points, most)
        assert len(kept) == most
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert kept == sorted(set(kept))
    assert thin(points, 1) == points[-1:]
    assert thin(points, 0) == []
    assert thin(points, 5_000) == points


def test_the_environment_is_the_runs_dataset(jobs):
    wanted = request(env_name="Pendulum-v1", env_kwargs={"g": 9.81})
    job_id = jobs.create(wanted).job_id
    jobs.log_environment(job_id, wanted)
    jobs.log_environment(job_id, wanted)
    client = MlflowClient(tracking_uri=jobs.tracking_uri)
    (entry,) = client.get_run(job_id).inputs.dataset_inputs
    assert entry.dataset.name == "Pendulum-v1"
    assert entry.dataset.source_type == "gymnasium"
    assert json.loads(entry.dataset.source) == {
        "env_name": "Pendulum-v1",
        "env_kwargs": {"g": 9.81},
    }
    _, digest = environment_of(wanted)
    assert digest.startswith(entry.dataset.digest)
    other = environment_of(request(env_name="Pendulum-v1"))
    assert other[1] != digest


@pytest.mark.rotated(11)
def test_jobs_that_begin_at_once_in_a_new_environment_all_name_it(tmp_path):
    """MLflow looks whether the dataset is there, then inserts it, and refuses the later one."""
    jobs = jobs_of(prepare(tmp_path))
    for round_ in range(10):
        wanted = request(env_kwargs={"max_episode_steps": 100 + round_})
        created = [jobs.create(wanted).job_id for _ in range(6)]
        together = threading.Barrier(len(created))

        def begin(job_id, wanted=wanted, together=together):
            together.wait()
            jobs.log_environment(job_id, wanted)

        with ThreadPoolExecutor(len(created)) as threads:
            list(threads.map(begin, created))
        client = MlflowClient(jobs.tracking_uri)
        digests = [
            entry.dataset.digest
            for job_id in created
            for entry in client.get_run(job_id).inputs.dataset_inputs
        ]
        assert len(digests) == len(created)
        assert len(set(digests)) == 1


def test_provenance_is_in_the_tags_of_a_new_job(jobs):
    wanted = request(seed=11)
    job_id = jobs.create(wanted).job_id
    tags = MlflowClient(tracking_uri=jobs.tracking_uri).get_run(job_id).data.tags
    for name in ("torch", "numpy", "gymnasium", "mlflow", "grpo-platform"):
        assert json.loads(tags[Tag.PACKAGES])[name]
    assert Tag.ENVIRONMENT_SPEC not in tags  # for which it would be made, by whoever queues
    by_worker = provenance_tags(wanted)
    assert json.loads(by_worker[Tag.ENVIRONMENT_SPEC])["env_name"] == "CartPole-v1"
    assert len(by_worker[Tag.ENVIRONMENT_HASH]) == 64
    assert tags[Tag.SEED] == "11"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if head.returncode == 0:  # a checkout, not an unpacked archive
        assert len(tags[Tag.GIT_COMMIT]) == 40
        assert tags[Tag.GIT_DIRTY] in ("true", "false")
        assert code_version().commit == tags[Tag.GIT_COMMIT]


def test_a_request_in_an_environment_that_cannot_be_made_has_the_other_tags():
    tags = provenance_tags(request(env_name="Nowhere-v1"))
    assert Tag.ENVIRONMENT_SPEC not in tags
    assert Tag.REPRODUCE in tags


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"env_name": "Pendulum-v1", "seed": 2**32 - 1, "net_arch": (8,), "clip_range_high": 0.3},
        {"env_kwargs": {"sutton_barto_reward": True}, "learning_rate": 1e-5, "bootstrap": True},
        {"env_name": "MountainCar-v0", "eval_freq": 50, "target_return": -100.0},
        {"total_timesteps": 1, "normalize_observations": False},
    ],
)
def test_the_command_repeats_the_request(fields):
    config = resolve_config(**({"env_name": "CartPole-v1", "seed": 0} | fields))
    words = shlex.split(reproduce_command(JobRequest(config=config)))
    assert words[:4] == ["mlflow", "run", ".", "--env-manager=local"]
    given = dict(word.split("=", 1) for word in words[4:] if word != "-P")
    again = resolve_config(**{name: _typed(name, text) for name, text in given.items()})
    assert again == config


def _typed(name, text):
    if name in ("env_name", "reward_function_type"):
        return text
    value = parse_param(text)
    whole = name in ("seed", "total_timesteps", "eval_freq", "group_size", "num_groups", "n_steps")
    return int(value) if whole or (name == "batch_size") else value


def test_params_compare_as_parsed():
    wanted = params_of(request(learning_rate=0.0003, env_kwargs={"a": [1, 2]}), "0" * 32)
    same = {
        "learning_rate": "3e-4", "total_timesteps": "'10000'", "normalize_observations": "true",
        "clip_range_high": "''", "model_name": "''", "env_name": "CartPole-v1",
        "env_kwargs": "'{\"a\": [1,2]}'", "net_arch": "'[64, 64]'", "unknown": "x",
    }  # fmt: skip
    assert differing(wanted, same) == []
    other = {
        "learning_rate": "3e-3", "seed": "1", "env_kwargs": "{}", "bootstrap": "True",
        "env_name": "'Acrobot-v1'", "net_arch": "[64]",
    }  # fmt: skip
    assert sorted(differing(wanted, other)) == sorted(other)


def test_of_a_log_that_is_too_large_only_its_end_is_read(jobs, tmp_path):
    job_id = jobs.create(request(total_timesteps=64)).job_id
    log = tmp_path / "worker.log"
    log.write_bytes(b"first\n" + b"a line\n" * 2**20 + b"last\n")
    jobs.upload(job_id, log, "logs")
    found = read_log(jobs, job_id)
    assert found.startswith(b"[earlier lines were dropped]\na line\n")
    assert found.endswith(b"a line\nlast\n")
    assert len(found) <= 2**20 + 64

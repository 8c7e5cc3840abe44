"""Environments of many packages, each trained, evaluated, registered and served by the platform.

A real server trains every one of them with its defaults, judges it and answers with an action.
Beside it stand a random policy (`action_space.sample()`) and Stable-Baselines3's PPO at its
defaults with the same budget, judged on the same episodes. Each is a row in
`benchmarks/results/environments.csv`; rows that are there are not measured again, so an interrupted
run goes on where it was. What fails is a row that says why.
"""

import argparse
import copy
import csv
import os
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from threadpoolctl import threadpool_limits

from benchmarks.results import FOLDER, write_machine
from benchmarks.server import serving
from grpo.actions import ActionSpec, DictActions
from grpo.envs.catalogue import MODULES_VARIABLE
from grpo.envs.spec import EnvironmentSpec, check_environment
from grpo.evaluation import Predictor, evaluate
from grpo.policies import default_policy
from grpo_platform.client import GRPOClient

RESULTS = FOLDER / "environments.csv"
COLUMNS = (
    "environment", "algorithm", "seed", "timesteps", "episodes", "mean_return", "ci_low", "ci_high",
    "train_seconds", "policy", "observation", "action", "error",
)  # fmt: skip
FIRST_SEED = 1_000  # reporting seeds; nothing was tuned on them
MODULES = (
    "ale_py", "benchmarks.dict_actions", "flappy_bird_gymnasium", "gymnasium_robotics",
    "highway_env", "minigrid", "mobile_env",
)  # fmt: skip
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """One line of the table."""

    family: str
    """Which package it is of, or which part of Gymnasium."""

    env_name: str
    """Gymnasium id."""

    total_timesteps: int
    """Budget of both sides; PPO may pass it by less than one rollout."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Sequence[Any] = ()

    n_seeds: int = 2
    """How many trainings; the first of each environment come before the second of any."""

    n_episodes: int = 20
    """Of each evaluation."""

    def spec(self) -> EnvironmentSpec:
        """What it looks like to a policy."""
        return check_environment(self.env_name, self.everything)

    @property
    def everything(self) -> dict[str, Any]:
        """Keyword arguments and wrappers, as the library takes them."""
        wrapped = {"wrappers": list(self.wrappers)} if self.wrappers else {}
        return {**self.env_kwargs, **wrapped}


# Without its text; as floats, since its bytes are numbers up to 10 of 255, which are small as parts
MINIGRID = (
    {"name": "FilterObservation", "kwargs": {"filter_keys": ["direction", "image"]}},
    "FlattenObservation",
    {"name": "DtypeObservation", "kwargs": {"dtype": "float32"}},
)
_ATARI = ("AtariPreprocessing", {"name": "FrameStackObservation", "kwargs": {"stack_size": 4}})


def _of(
    family: str,
    budgets: Mapping[str, int],
    **others: object,
) -> list[Environment]:
    return [
        Environment(family=family, env_name=name, total_timesteps=steps, **others)
        for name, steps in budgets.items()
    ]


ENVIRONMENTS: dict[str, Environment] = {
    environment.env_name: environment
    for environment in (
        *_of("toy_text", {"Blackjack-v1": 20_000}, n_seeds=3, n_episodes=1_000),  # a coin each
        *_of("toy_text", {
            "CliffWalking-v1": 30_000, "CliffWalkingSlippery-v1": 30_000,
            "FrozenLake-v1": 30_000, "FrozenLake8x8-v1": 50_000, "Taxi-v4": 50_000,
        }, n_seeds=3, n_episodes=100),
        *_of("classic control", {
            "CartPole-v1": 20_000, "MountainCar-v0": 30_000, "MountainCarContinuous-v0": 20_000,
            "Pendulum-v1": 30_000, "Acrobot-v1": 30_000,
        }, n_seeds=3, n_episodes=50),
        *_of("Box2D", {
            "LunarLander-v3": 50_000, "LunarLanderContinuous-v3": 40_000,
            "BipedalWalker-v3": 30_000, "BipedalWalkerHardcore-v3": 10_000,
        }),
        Environment(family="Box2D", env_name="CarRacing-v3", total_timesteps=2_048, n_episodes=5,
                    n_seeds=1),
        *_of("MuJoCo", {
            "InvertedPendulum-v5": 20_000, "InvertedDoublePendulum-v5": 30_000,
            "Reacher-v5": 30_000, "Pusher-v5": 30_000, "Swimmer-v5": 30_000, "Hopper-v5": 30_000,
            "HalfCheetah-v5": 30_000, "Walker2d-v5": 30_000,
        }),
        *_of("minigrid", {"MiniGrid-Empty-5x5-v0": 20_000, "MiniGrid-DoorKey-5x5-v0": 50_000},
             wrappers=MINIGRID, n_episodes=50),
        Environment(family="flappy-bird-gymnasium", env_name="FlappyBird-v0",
                    total_timesteps=30_000, env_kwargs={"use_lidar": False}, n_episodes=50),
        Environment(family="ale-py, RAM", env_name="ALE/Boxing-v5", total_timesteps=30_000,
                    env_kwargs={"obs_type": "ram"}, n_episodes=10),
        Environment(family="ale-py, pixels", env_name="ALE/Pong-v5", total_timesteps=2_048,
                    env_kwargs={"frameskip": 1}, wrappers=_ATARI, n_episodes=5,
                    n_seeds=1),
        Environment(family="gymnasium-robotics", env_name="PointMaze_UMazeDense-v3",
                    total_timesteps=30_000, n_episodes=50),
        Environment(family="highway-env", env_name="highway-fast-v0", total_timesteps=2_048,
                    env_kwargs={"config": {"vehicles_count": 5}}, n_seeds=1),
        Environment(family="mobile-env, MultiDiscrete actions", env_name="mobile-small-central-v0",
                    total_timesteps=10_240),
        Environment(family="benchmarks/dict_actions.py, Dict actions",
                    env_name="LunarLanderDict-v0", total_timesteps=50_000),
    )
}  # fmt: skip


# --- what is measured -----------------------------------------------------------------------


Figures = dict[str, Any]
"""Columns of one row."""


def random_policy(environment: Environment, seed: int) -> Figures:
    """Actions drawn by the space itself."""
    return judged(environment, RandomPolicy(environment.spec(), seed))


def ppo(environment: Environment, seed: int) -> Figures:
    """Stable-Baselines3's PPO at its defaults, on one environment, as its `learn` makes it."""
    from benchmarks.ppo_defaults import PPOPolicy, make_ppo

    spec = environment.spec()
    model = make_ppo(spec, 1, seed)
    began = time.perf_counter()
    model.learn(environment.total_timesteps)
    seconds = time.perf_counter() - began
    model.env.close()
    return {
        "timesteps": model.num_timesteps, "train_seconds": f"{seconds:.1f}",
        **judged(environment, PPOPolicy(model, spec.observation)),
    }  # fmt: skip


def grpo(environment: Environment, seed: int, client: GRPOClient) -> Figures:
    """A job of the platform; its model is asked for an action, and that is taken.

    Args:
        environment: what is trained on.
        seed: of the training.
        client: of the server.

    Raises:
        RuntimeError: the job failed, or the action was none.
    """
    model_name = re.sub(r"[^\w-]+", "-", f"{environment.env_name}-{seed}")
    job = client.train_model(
        model_name, environment.env_name, environment.total_timesteps, seed=seed,
        env_kwargs=dict(environment.env_kwargs), wrappers=list(environment.wrappers) or None,
        n_eval_episodes=environment.n_episodes,
    )  # fmt: skip
    if job["status"] != "completed" or job["model_version"] is None:
        raise RuntimeError(f"the job is {job['status']}: {job['error_message']}")
    spec = environment.spec()
    check_served(client, model_name, spec, seed)
    metrics = job["metrics"]
    return {
        "timesteps": job["current_timesteps"],
        "train_seconds": f"{metrics['time/time_elapsed']:.1f}",
        "policy": default_policy(spec.observation),
        **_judgement(metrics["eval/mean_reward"], metrics["eval/ci_low"], metrics["eval/ci_high"]),
    }


def check_served(client: GRPOClient, model_name: str, spec: EnvironmentSpec, seed: int) -> None:
    """Ask the model for an action in a first observation, and take it.

    Raises:
        RuntimeError: it is not of the action space.
    """
    env = spec.make()
    try:
        observation, _ = env.reset(seed=seed)
        reply = client.predict(model_name, observation)
        action = from_json(env.action_space, reply["action"])
        if not env.action_space.contains(action):
            raise RuntimeError(f"the model's action {reply['action']} is not of the space")
        env.step(action)
    finally:
        env.close()


def from_json(space: spaces.Space[Any], value: Any) -> Any:  # noqa: ANN401 - any action
    """An action of a reply, as the space has it."""
    if isinstance(space, spaces.Dict):
        return {key: from_json(part, value[key]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(from_json(part, each) for part, each in zip(space, value, strict=True))
    return np.int64(value) if isinstance(space, spaces.Discrete) else np.array(value, space.dtype)


def judged(environment: Environment, policy: Predictor) -> Figures:
    """The mean return of greedy episodes, which are the same ones for every policy."""
    result = evaluate(
        policy, environment.env_name, env_kwargs=environment.everything,
        n_episodes=environment.n_episodes,
    )  # fmt: skip
    return _judgement(result.mean, result.ci_low, result.ci_high)


def _judgement(mean: float, low: float, high: float) -> Figures:
    return {"mean_return": f"{mean:.3f}", "ci_low": f"{low:.3f}", "ci_high": f"{high:.3f}"}


class RandomPolicy:
    """Samples of the action space, behind the interface that `evaluate` plays."""

    def __init__(self, spec: EnvironmentSpec, seed: int) -> None:
        self._action: ActionSpec = spec.action
        self._space = copy.deepcopy(spec.action_space)
        self._space.seed(seed)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions for observations of shape (N, *observation_shape)."""
        return np.stack([self._row(self._space.sample()) for _ in observations])

    def _row(self, action: object) -> np.ndarray:
        if not isinstance(self._action, DictActions):
            return np.asarray(action)
        parts = []
        for path, _ in self._action.parts:
            part = action
            for key in path:
                part = part[key]
            parts.append(np.ravel(part))
        return np.concatenate(parts)


# --- rows -------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows measured so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Figures) -> None:
    """Add one row, the header first in a new file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    if path == RESULTS:
        write_machine(RESULTS.stem)


def measure(chosen: Sequence[Environment], client: GRPOClient, path: Path) -> None:
    """Measure every row that is not there yet, one after the other, the first seeds first."""
    done = {(row["environment"], row["algorithm"], int(row["seed"])) for row in read_rows(path)}
    sides: dict[str, Callable[[Environment, int], Figures]] = {
        "random": random_policy, "grpo": lambda each, seed: grpo(each, seed, client), "ppo": ppo,
    }  # fmt: skip
    for number in range(max(each.n_seeds for each in chosen)):
        for environment in (each for each in chosen if number < each.n_seeds):
            seed = FIRST_SEED + number
            for algorithm, side in sides.items():
                again = (environment.env_name, algorithm, seed) in done
                if not again and (algorithm != "random" or number == 0):
                    append_row(path, measured(environment, algorithm, seed, side))


def measured(
    environment: Environment, algorithm: str, seed: int, side: Callable[..., Figures]
) -> Figures:
    """One row; what fails says so in it, and ends nothing."""
    row: Figures = {
        "environment": environment.env_name, "algorithm": algorithm, "seed": seed,
        "episodes": environment.n_episodes,
    }  # fmt: skip
    began = time.perf_counter()
    try:
        spec = environment.spec()
        row |= {"observation": shown(spec.observation_space), "action": shown(spec.action_space)}
        row |= side(environment, seed)
    except Exception as error:  # noqa: BLE001 - whatever it was, the other rows are measured
        row["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    took = time.perf_counter() - began
    told = row.get("error") or row["mean_return"]
    print(f"{environment.env_name} {algorithm} seed {seed}: {told} ({took:.0f} s)", flush=True)
    return row


def shown(space: spaces.Space[Any]) -> str:
    """A space in few words, such as `Box(4)` or `Dict(main Box(1), side Discrete(3))`."""
    name = type(space).__name__
    match space:
        case spaces.Discrete():
            return f"{name}({space.n})"
        case spaces.MultiDiscrete():
            return f"{name}({', '.join(map(str, space.nvec))})"
        case spaces.Dict():
            return f"{name}({', '.join(f'{key} {shown(part)}' for key, part in space.items())})"
        case spaces.Tuple():
            return f"{name}({', '.join(map(shown, space))})"
    kind = " bytes" if space.dtype == np.uint8 else ""
    return f"{name}({'×'.join(map(str, space.shape or ()))}){kind}"


# --- the table --------------------------------------------------------------------------------


HEADER = (
    "| environment | observes | acts in | policy | steps | seeds | random | GRPO | PPO "
    "| above random |\n" + "|---" * 10 + "|"
)


def table(path: Path = RESULTS) -> str:
    """What was measured, as Markdown: a line for each environment."""
    rows = read_rows(path)
    lines = [HEADER]
    for name, environment in ENVIRONMENTS.items():
        sides = {
            side: [r for r in rows if r["environment"] == name and r["algorithm"] == side]
            for side in ("random", "grpo", "ppo")
        }
        if any(sides.values()):
            lines.append(line(environment, sides))
    return "\n".join(lines)


def line(environment: Environment, sides: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """One line of the table."""
    known = next(row for rows in sides.values() for row in rows)
    ours, theirs = sides["grpo"], sides["ppo"]
    cells = (
        f"{environment.env_name} ({environment.family})", known["observation"], known["action"],
        next((row["policy"] for row in ours if row["policy"]), "—"),
        next((f"{int(row['timesteps']):,}" for row in ours if row["timesteps"]), "—"),
        str(len(ours) or "—"),
        _mean(sides["random"]), _mean(ours),
        _mean(theirs), verdict(ours, sides["random"]),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def verdict(ours: Sequence[Mapping[str, str]], chance: Sequence[Mapping[str, str]]) -> str:
    """Of how many trainings the whole 95 % interval lies above that of the random policy."""
    limits = [float(row["ci_high"]) for row in chance if row["ci_high"]]
    if not limits or not ours:
        return "—"
    if failed := next((row["error"] for row in ours if row["error"]), ""):
        return f"FAILED: {failed}"
    above = sum(float(row["ci_low"]) > limits[0] for row in ours)
    if len(ours) == 1:
        return "yes" if above else "no"
    return "yes" if above == len(ours) else "no" if above == 0 else f"{above} of {len(ours)}"


def _mean(rows: Sequence[Mapping[str, str]]) -> str:
    values = [float(row["mean_return"]) for row in rows if row["mean_return"]]
    if not values:
        return "—"
    value = statistics.fmean(values)
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def main() -> None:
    """Measure what was asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these environments alone")
    parser.add_argument("--timesteps", type=int, help="another budget for each of them")
    parser.add_argument("--seeds", type=int, help="another number of trainings for each of them")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of rows")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.only or ()) - set(ENVIRONMENTS))
    if unknown:
        parser.error(f"unknown environment {unknown[0]!r}; use: {', '.join(ENVIRONMENTS)}")
    given = {"total_timesteps": arguments.timesteps, "n_seeds": arguments.seeds}
    changes = {name: value for name, value in given.items() if value is not None}
    names = arguments.only or list(ENVIRONMENTS)
    chosen = [replace(ENVIRONMENTS[name], **changes) for name in names]
    warnings.filterwarnings("ignore")  # of packages, about each other
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    torch.set_num_threads(1)
    os.environ[MODULES_VARIABLE] = ",".join(MODULES)
    with threadpool_limits(1):
        if not arguments.table:
            run(chosen, arguments.results)
    print(table(arguments.results))


def run(chosen: Sequence[Environment], path: Path) -> None:
    """Measure through a server in a folder that goes away, one job at a time, on one thread."""
    settings = {
        MODULES_VARIABLE: ",".join(MODULES), "GRPO_MAX_CONCURRENT_JOBS": "1",
        "GRPO_ENVIRONMENT_SECONDS": "300", "PYTHONPATH": str(REPOSITORY), **ONE_THREAD,
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="environments-") as folder,
        serving(Path(folder), **settings) as url,
        GRPOClient(url) as client,
    ):
        measure(chosen, client, path)


if __name__ == "__main__":
    main()

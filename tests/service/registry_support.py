"""Policies with known behaviour, jobs that made them, and a registry on a real store."""

import itertools
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from mlflow.tracking import MlflowClient

from grpo import GRPOConfig
from grpo.actions import BoxActions, DiscreteActions
from grpo.envs import check_environment
from grpo.evaluation import evaluate
from grpo.policies import BasePolicy, MlpPolicy, PolicySpec, make_policy
from grpo_platform.registry.card import ModelCard
from grpo_platform.registry.models import Registry
from grpo_platform.registry.promotion import Promoter
from grpo_platform.registry.registering import register_policy
from tests.service.tracking_support import prepare

torch.set_num_threads(1)

CARTPOLE = PolicySpec(observation_shape=(4,), action=DiscreteActions(2))
PENDULUM = PolicySpec(observation_shape=(3,), action=BoxActions((1,), (-2.0,), (2.0,)))
_numbers = itertools.count()


def random_policy(spec=CARTPOLE, seed=0, gain=3.0) -> BasePolicy:
    """Untrained, but with an opinion, a normaliser and a value scale of its own."""
    policy = make_policy(spec, seed)
    policy.flat[:] *= gain
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        policy.observation_mean += torch.from_numpy(rng.normal(size=spec.observation_size))
        policy.observation_var *= torch.from_numpy(rng.uniform(0.2, 3.0, spec.observation_size))
        policy.value_mean += 10.0
        policy.value_std *= 7.0
    return policy


def balancing_policy(speed=0.2) -> MlpPolicy:
    """Pushes where CartPole's pole falls, by its angle plus `speed` times its velocity.

    Mean returns: 41 for a speed of 0, 500 for 0.2, 478 for 1, 387 for 2.
    """
    policy = MlpPolicy(CARTPOLE)
    policy.flat[:] = 0.0
    with torch.no_grad():
        policy.policy_net[0].weight[0] = torch.tensor([0.0, 0.0, 1.0, speed])
        policy.policy_net[1].weight[0, 0] = 1.0
        policy.policy_net[2].weight[:, 0] = torch.tensor([-5.0, 5.0])
    return policy


def constant_policy(action, n) -> MlpPolicy:
    """Always the same of n actions, whatever it sees."""
    policy = MlpPolicy(PolicySpec(observation_shape=(1,), action=DiscreteActions(n)))
    policy.flat[:] = 0.0
    with torch.no_grad():
        policy.policy_net[-1].bias[action] = 9.0
    return policy


class Bench:
    """A registry on a real store, sqlite unless a URI is given, and jobs to register from."""

    def __init__(self, folder, uri=None) -> None:
        folder.mkdir(exist_ok=True)
        self.store = prepare(folder, uri)
        self.uri = self.store.tracking_uri
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.registry = Registry(self.uri)
        self.promoter = Promoter(self.registry)

    def name(self) -> str:
        """A name that no other test of the module uses."""
        return f"model-{next(_numbers)}"

    def job(self) -> str:
        return self.client.create_run(self.store.experiment_id).info.run_id

    def card(
        self, job_id, env_name="CartPole-v1", evaluation=None, baselines=None, **kwargs
    ) -> ModelCard:
        return ModelCard.of_job(
            job_id,
            GRPOConfig(env_name=env_name, env_kwargs=kwargs),
            check_environment(env_name, kwargs),
            timesteps=128,
            evaluation=evaluation,
            baselines=baselines,
            git_commit="0123456789abcdef",
        )

    def register(self, name, policy=None, rule=None, evaluated=False, **card):
        """A version as a worker makes it; with `rule`, also decided about."""
        policy = policy or random_policy()
        job_id = self.job()
        evaluation = evaluate(policy, "CartPole-v1", n_episodes=5) if evaluated else None
        card = self.card(job_id, evaluation=evaluation, **card)
        ref = register_policy(self.registry, job_id, policy, name, card)
        if rule is None:
            return ref
        return ref, self.promoter.decide_after_training(ref, rule, f"job {job_id}")

    def folder(self, ref):
        """Where the files of a version lie."""
        location = self.client.get_logged_model(ref.model_id).artifact_location
        return Path(urlsplit(location).path)

"""The end of an experiment on a real store: figures, files, and the version that serves."""

import csv
from urllib.parse import urlsplit

import pytest

from grpo.evaluation import evaluation_seeds
from grpo_platform.core.names import ExperimentMetric, Metric, Tag
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.finalize import complete
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.experiments.selection import fresh_seed
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.jobs.in_memory import InMemoryBackend
from grpo_platform.registry.promotion import Promoter
from tests.service.jobs_support import platform
from tests.service.tracking_support import request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPISODES = 4
SHORT = {"total_timesteps": 2_000, "n_eval_episodes": EPISODES}


class Experiments:
    """Experiments whose seeds are trained here, and finalized by hand."""

    def __init__(self, one):
        self.platform = one
        self.store = ExperimentStore(one.jobs)
        self.promoter = Promoter(one.registry)

    def trained(self, register="best", seeds=(1, 2, 3), name="m", **fields):
        asked = ExperimentRequest.of(request(**SHORT, **fields, model_name=name), seeds, register)
        made, _ = self.store.create(asked)
        for seed in self.store.seeds(made):
            job = self.store.publish(seed.job_id)
            self.platform.runner.enqueue(job)
        self.store.start(made.experiment_id, "here:1:1")
        for job_id in made.seed_jobs.values():
            self.platform.wait(job_id)
        return made.experiment_id

    def complete(self, experiment_id):
        found = self.store.experiment(experiment_id)
        complete(self.store, self.platform.jobs, self.promoter, found, self.store.seeds(found))
        return self.store.experiment(experiment_id)

    def scores(self, experiment_id):
        seeds = self.store.seeds(self.store.experiment(experiment_id))
        return {seed.seed: seed.job.metrics[Metric.EVAL_MEAN] for seed in seeds}

    def folder(self, experiment_id):
        return urlsplit(self.platform.client.get_run(experiment_id).info.artifact_uri).path


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    with platform(tmp_path_factory.mktemp("experiments"), InMemoryBackend) as one:
        yield Experiments(one)


@pytest.fixture(scope="module")
def best(experiments):
    experiment_id = experiments.trained("best", name="best")
    assert experiments.complete(experiment_id).status is JobStatus.COMPLETED
    return experiment_id


@pytest.mark.rotated(11)
def test_the_best_seeds_version_is_registered_with_what_it_does_on_fresh_episodes(
    experiments, monkeypatch
):
    crashed = experiments.trained("best", name="crashed")
    registry = experiments.platform.registry
    played = []

    def evaluate(*args, **game):
        played.append(game)
        return experiments_evaluate(*args, **game)

    experiments_evaluate = experiments.promoter.evaluate
    monkeypatch.setattr(experiments.promoter, "evaluate", evaluate)
    # a server that dies before it says what was chosen finds the version, and makes no other
    with monkeypatch.context() as patch:
        patch.setattr(experiments.store, "set_tags", crash)
        with pytest.raises(KeyboardInterrupt):
            experiments.complete(crashed)
    done = experiments.complete(crashed)
    assert done.status is JobStatus.COMPLETED, done.error_message

    scores, found = experiments.scores(crashed), done.selection
    assert found.chosen_by == scores[found.seed] == max(scores.values())
    (version,) = registry.get("crashed").versions
    assert (version.version, version.job_id) == (found.model_version, found.job_id)
    again = registry.load_policy(
        f"grpo_seeds_{crashed}/{seed_version(experiments, crashed, found.seed)}"
    )
    assert again.flat.tobytes() == registry.load_policy("crashed").flat.tobytes()
    assert len(registry.get(f"grpo_seeds_{crashed}").versions) == 3  # none is lost
    assert registry.get(f"grpo_seeds_{crashed}").champion is None

    game = played[0]
    assert (game["n_episodes"], game["seed"], game["skip"]) == (EPISODES, fresh_seed(EPISODES), 0)
    assert not set(evaluation_seeds(EPISODES, game["seed"])) & set(evaluation_seeds(EPISODES))
    assert version.card.evaluation == found.evaluation
    assert found.evaluation.episodes == EPISODES
    assert version.card.selection.startswith(f"Seed {found.seed} was chosen as the best of 3 seeds")
    (decision,) = registry.get("crashed").decisions
    assert (decision.actor, decision.promoted) == (f"experiment {crashed}", True)
    assert f"On {EPISODES} fresh episodes it returns" in decision.reason
    assert decision.reason in found.reason
    assert decision.reason.endswith("The name had no champion.")


@pytest.mark.rotated(14)
def test_the_parent_run_has_figures_files_and_a_description(experiments, best):
    done = experiments.store.experiment(best)
    run = experiments.platform.client.get_run(best)
    scores = sorted(experiments.scores(best).values())
    found = run.data.metrics
    assert found[ExperimentMetric.COMPLETED] == 3
    assert found[ExperimentMetric.IQM] == pytest.approx(sum(scores) / 3)  # of 3 none is dropped
    assert found[ExperimentMetric.CI_LOW] <= found[ExperimentMetric.IQM]
    assert found[ExperimentMetric.REACHED] == 0
    assert done.metrics[ExperimentMetric.AREA] > 0
    files = {f.path for f in experiments.platform.client.list_artifacts(best)}
    assert files == {"learning_curves.csv", "learning_curves.png", "report.md", "seeds.csv"}
    with open(f"{experiments.folder(best)}/seeds.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["evaluation"]) for row in rows] == list(experiments.scores(best).values())
    note = run.data.tags[Tag.NOTE]
    assert done.selection.reason in note
    assert "interquartile mean over 3 seeds" in note


@pytest.mark.rotated(9)
def test_the_median_and_each(experiments):
    registry = experiments.platform.registry
    median = experiments.complete(experiments.trained("median", name="median"))
    scores = experiments.scores(median.experiment_id)
    assert sorted(scores.values())[1] == scores[median.selection.seed]
    assert len(registry.get("median").versions) == 1

    each = experiments.complete(experiments.trained("each", name="each"))
    assert (each.status, each.selection) == (JobStatus.COMPLETED, None)
    assert len(registry.get("each").versions) == 3
    assert registry.get("each").champion is None
    note = experiments.platform.client.get_run(each.experiment_id).data.tags[Tag.NOTE]
    assert "None was chosen by its result" in note


@pytest.mark.rotated(4)
def test_the_second_experiment_is_judged_by_the_usual_rule(experiments, best):
    second = experiments.trained("best", seeds=(1, 2, 3), name="best")
    done = experiments.complete(second)
    assert done.selection.model_version == 2
    decision = experiments.platform.registry.get("best").decisions[-1]
    assert decision.comparison.equal  # the same seeds train the same policies
    assert done.selection.promoted
    assert "Equal on every seed" in done.selection.reason


@pytest.mark.rotated(9)
def test_where_a_seed_failed_none_is_chosen_but_all_is_told(experiments):
    experiment_id = experiments.trained("best", seeds=(4, 5), name="failed")
    found = experiments.store.experiment(experiment_id)
    seeds = experiments.store.seeds(found)
    experiments.platform.client.delete_run(seeds[1].job_id)
    done = experiments.complete(experiment_id)
    assert (done.status, done.selection) == (JobStatus.FAILED, None)
    assert "1 of 2 seeds failed" in done.error_message
    assert done.metrics[ExperimentMetric.COMPLETED] == 1
    assert experiments.platform.registry.lookup("failed") is None


@pytest.mark.rotated(9)
def test_a_name_that_became_anothers_is_told_and_nothing_is_lost(experiments):
    experiment_id = experiments.trained("best", seeds=(6, 7), name="taken")
    other = experiments.platform.submit(
        env_name="Acrobot-v1", model_name="taken", total_timesteps=64, n_eval_episodes=1
    )
    experiments.platform.wait(other.job_id)
    done = experiments.complete(experiment_id)
    assert done.status is JobStatus.COMPLETED
    assert done.selection.model_version is None
    assert "It is not registered: The model name 'taken' belongs to Acrobot-v1" in (
        done.selection.reason
    )
    assert len(experiments.platform.registry.get(f"grpo_seeds_{experiment_id}").versions) == 2


def seed_version(experiments, experiment_id, seed):
    seeds = experiments.store.seeds(experiments.store.experiment(experiment_id))
    return next(each.job.model_version for each in seeds if each.seed == seed)


def crash(*args, **kwargs):
    raise KeyboardInterrupt

"""Every tag, alias and file name that makes a registered model ours, in one place."""

from typing import Final

__all__ = [
    "CHAMPION",
    "CODE_DIR",
    "DECISIONS_EXPERIMENT",
    "LOADER_MODULE",
    "MODEL_KIND",
    "POLICY_DIR",
    "REFERENCE_FILE",
    "SPEC_FILE",
    "WEIGHTS_FILE",
    "Tag",
]

CHAMPION: Final = "champion"
"""Alias of the version that serves under the bare model name."""

MODEL_KIND: Final = "policy"
"""Value of `Tag.KIND` on the names and versions that are ours."""

DECISIONS_EXPERIMENT: Final = "grpo-promotions"
"""Experiment with one run per model name, whose params are the name's decisions."""

POLICY_DIR: Final = "policy"
"""Folder, in the model, of what our loader reads."""

SPEC_FILE: Final = "spec.json"
WEIGHTS_FILE: Final = "weights.pt"

CODE_DIR: Final = "code"
"""Folder, in the model, of the loader that travels with it."""

LOADER_MODULE: Final = "grpo_policy_loader_v3"
"""Name under which the loader travels with new models; every change to it takes the next one."""


REFERENCE_FILE: Final = "reference/episodes.npz"
"""In the model: how it played when it was made; see `grpo_platform.registry.reference`."""


class Tag:
    """Tags of registered models (R), of their versions (V) and of logged models (L)."""

    KIND: Final = "grpo.model"
    """R, V, L: marks what is ours."""
    ENV_NAME: Final = "grpo.env_name"
    """R, V: the environment that the name belongs to."""
    ENV_KWARGS: Final = "grpo.env_kwargs"
    """R: its keyword arguments, canonical JSON."""
    DECISIONS: Final = "grpo.decisions"
    """R: id of the run that keeps the name's decisions."""
    APPLIED: Final = "grpo.decision_applied"
    """R: number of the last decision whose outcome the alias shows."""
    CHAMPION_CARD: Final = "grpo.champion_eval"
    """R: the champion's version and evaluation, as JSON, for lists."""
    DELETING: Final = "grpo.deleting"
    """R: a deletion has begun; the name is gone for everybody, its files may still be going."""
    MODEL_NAME: Final = "grpo.model_name"
    """L: registered name that it was made for."""
    MODEL_ID: Final = "grpo.model_id"
    """V: the logged model that holds the files."""
    CARD: Final = "grpo.card"
    """V: `ModelCard` as JSON."""
    FILES: Final = "grpo.files"
    """V: SHA-256 of every file of the model, as JSON."""
    WEIGHTS_SHA256: Final = "grpo.weights_sha256"
    """V: SHA-256 of the weights' file."""
    EVAL_MEAN: Final = "grpo.eval_mean"
    """V: mean return of the evaluation."""
    LEARNED: Final = "grpo.learned"
    """V: whether it is better than random actions and than what its job started from."""
    SEED: Final = "grpo.seed"
    """V: seed of the training run."""
    GIT_COMMIT: Final = "grpo.git_commit"
    """V: commit that trained it."""
    VERDICT: Final = "grpo.verdict"
    """V: outcome of its latest decision."""
    SCENARIOS: Final = "grpo.scenarios"
    """V: whether it passed the name's suite when it was last played, for the MLflow UI."""

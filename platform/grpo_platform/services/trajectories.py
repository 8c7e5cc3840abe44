"""Play a registered version, and hand its episodes on: files, and a description beside them."""

import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from grpo.envs import EnvironmentSpec, check_environment
from grpo.evaluation import evaluation_seeds
from grpo.trajectories import play
from grpo_platform.core.errors import UnknownModelError
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import POLICY_DIR, WEIGHTS_FILE
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.registry.reference import environment_packages
from grpo_platform.registry.trajectory_files import (
    Written,
    check_minari,
    columns_of,
    minari_id,
    write_minari,
    write_parquet,
)

__all__ = ["METADATA_FILE", "TrajectoryExport", "TrajectoryFormat", "export_trajectories"]

METADATA_FILE: Final = "metadata.json"


class TrajectoryFormat(StrEnum):
    """What episodes are written as."""

    PARQUET = "parquet"
    MINARI = "minari"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryExport:
    """What was written, and where."""

    version: ModelVersionRef
    folder: Path
    metadata: dict[str, Any]
    """What `METADATA_FILE` holds."""


def export_trajectories(
    registry: Registry,
    version: ModelVersionRef,
    target: Path,
    *,
    kind: TrajectoryFormat,
    episodes: int,
    seed: int,
    deterministic: bool = True,
) -> TrajectoryExport:
    """Play a version, and write every step; see `grpo_platform.services.direct.export_episodes`."""
    if kind is TrajectoryFormat.MINARI:
        check_minari()  # before anything is played
    owner = registry.environment_of(version.name)
    if owner is None:
        raise UnknownModelError(version.name)
    policy = registry.load_policy(version.label)
    spec = check_environment(owner.env_name, owner.env_kwargs)
    seeds = evaluation_seeds(episodes, seed).tolist()
    played = play(policy, owner.env_name, seeds, env_kwargs=owner.env_kwargs,
                  deterministic=deterministic, seed=seed)  # fmt: skip
    about = f"{version.label} of grpo-platform in {owner.env_name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside it, so that it appears as a whole or not at all
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / "export"
        folder.mkdir()
        named = minari_id(version.name, version.version)
        if kind is TrajectoryFormat.MINARI:
            written = write_minari(played, spec, folder, named, about)
        else:
            written = write_parquet(played, spec, folder)
        asked = {"seed": seed, "seeds": seeds, "deterministic": deterministic}
        asked |= {"dataset_id": named} if kind is TrajectoryFormat.MINARI else {}
        metadata = _metadata(version, spec, kind, written) | asked
        text = json.dumps(metadata, indent=2) + "\n"
        (folder / METADATA_FILE).write_text(text, encoding="utf-8")
        folder.rename(target)
    return TrajectoryExport(version=version, folder=target, metadata=metadata)


def _metadata(
    version: ModelVersionRef, spec: EnvironmentSpec, kind: TrajectoryFormat, written: Written
) -> dict[str, Any]:
    return {
        "format": kind.value,
        "model": version.name,
        "version": version.version,
        "job_id": version.run_id,
        "weights_sha256": version.files.get(f"{POLICY_DIR}/{WEIGHTS_FILE}"),
        "env_name": spec.env_name,
        "env_kwargs": {k: v for k, v in spec.env_kwargs.items() if k != "wrappers"},
        "wrappers": spec.env_kwargs.get("wrappers", []),
        "max_episode_steps": spec.max_episode_steps,
        "columns": columns_of(spec),
        "episodes": len(written.returns),
        "steps": sum(written.lengths),
        "cut": written.cut,
        "mean_return": sum(written.returns) / len(written.returns),
        "packages": environment_packages(spec),
        "python": platform.python_version(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }

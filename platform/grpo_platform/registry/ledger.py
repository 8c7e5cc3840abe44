"""What is kept about a name in an MLflow run of its own: params that cannot be changed, and files.

A param is written once, so a key is won by exactly one writer, whichever process or server it is
in, and nothing can rewrite what it says.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import LifecycleStage
from mlflow.tracking import MlflowClient

from grpo_platform.core.errors import StoreError
from grpo_platform.tracking.exceptions import error_code, is_missing, retrying
from grpo_platform.tracking.files import RunFiles

__all__ = ["RunLedger"]


class RunLedger:
    """A run as a ledger.

    Args:
        client: of the store.
        files: of its runs.
        run_id: run that keeps it.
    """

    def __init__(self, client: MlflowClient, files: RunFiles, run_id: str) -> None:
        self._client = client
        self._files = files
        self.run_id = run_id

    def params(self) -> Mapping[str, str]:
        """All that is written; nothing if the run was purged.

        A run that someone deleted in the MLflow UI is restored: the history goes on in it.
        """
        try:
            run = retrying(lambda: self._client.get_run(self.run_id))
        except StoreError as error:
            if is_missing(error):
                return {}
            raise
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            retrying(lambda: self._client.restore_run(self.run_id))
        params: Mapping[str, str] = run.data.params
        return params

    def write(self, key: str, text: str) -> bool:
        """Write a param, unless another writer was first.

        Returns:
            Whether it was written.
        """
        try:
            retrying(lambda: self._client.log_param(self.run_id, key, text))
        except StoreError as error:
            if error_code(error) == "INVALID_PARAMETER_VALUE":
                return False
            raise
        return True

    def store(self, name: str, content: Mapping[str, object], folder: str) -> str:
        """Keep JSON values as an artifact; returns its path."""
        run = retrying(lambda: self._client.get_run(self.run_id))
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / name
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            return self._files.upload(run.info.artifact_uri, file, folder, verify=False)

    def fetch(self, path: str) -> object:
        """JSON values that an artifact holds.

        Raises:
            StoreError: it is gone, or damaged.
        """
        run = retrying(lambda: self._client.get_run(self.run_id))
        with TemporaryDirectory() as scratch:
            file = self._files.download(run.info.artifact_uri, path, Path(scratch))
            try:
                return json.loads(file.read_bytes())
            except (OSError, ValueError) as error:
                raise StoreError(f"The artifact {path} is damaged.") from error

"""Entry points of the MLproject: what they make of their parameters."""

from pathlib import Path

import pytest

from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.mlproject.__main__ import main
from grpo_platform.mlproject.entry_points import request_of
from grpo_platform.mlproject.parameters import parse_parameters
from tests.service.tracking_support import prepare


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mlflow run` has made before it calls us."""
    folder = tmp_path_factory.mktemp("store")
    prepare(folder)
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def as_mlflow_calls_it(monkeypatch: pytest.MonkeyPatch, database: Path) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")


@pytest.mark.parametrize(
    ("parameter", "value", "complaint"),
    [
        ("learning_rate", "fast", "learning_rate: Input should be a valid number"),
        ("learning_rate", "nan", "learning_rate: Input should be"),
        ("total_timesteps", "0", "total_timesteps: Input should be greater than or equal to 1"),
        ("total_timesteps", "1.5", "total_timesteps: Input should be a valid integer"),
        ("total_timesteps", "", "total_timesteps: Input should be a valid integer"),
        ("seed", "-1", "seed: Input should be greater than or equal to 0"),
        ("bootstrap", "2", "bootstrap: Input should be a valid boolean"),
        ("net_arch", "[64, 0]", "net_arch.1: Input should be greater than or equal to 1"),
        ("steps", "5", "steps: There is no such field. Did you mean 'n_steps'?"),
        ("model_name", "../../etc/passwd", "model_name: String should match pattern"),
        ("env_name", "CartPol-v1", "Unknown env_name 'CartPol-v1'"),
        ("advantage", "best", "Unknown advantage 'best'"),
        ("env_kwargs", '{"wings": 2}', "wings"),
        ("init_from", "nobody", "No model 'nobody'"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_sentence(
    parameter: str, value: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", f"--{parameter}", value])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said.partition("grpo-platform cannot train this:\n")[2]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["evaluate"], "model: This field is required"),
        (["evaluate", "--model", "a/b/c"], "model: String should match pattern"),
        (["evaluate", "--model", "nobody"], "No model 'nobody'"),
        (["evaluate", "--model", "nobody", "--episodes", "0"], "episodes: Input should be greater"),
        (["evaluate", "--model", "nobody", "--episodes", "ten"], "episodes: Input should be a val"),
        (["evaluate", "--model", "nobody", "--seed", "-1"], "seed: Input should be greater"),
        (["evaluate", "--model", "nobody", "--sample", "1"], "sample: There is no such field"),
        (["reproduce"], "run_id: This field is required"),
        (["reproduce", "--run_id", "f" * 32], "No training job"),
        (["reproduce", "--run_id", "f" * 32, "--seed", "x"], "seed: Input should be a valid"),
    ],
)
def test_other_entry_points_refuse_with_a_sentence_too(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said.partition(f"grpo-platform cannot {words[0]} this:\n")[2]
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [[], ["evaluat"], ["train", "--seed"], ["train", "seed", "1"]])
def test_a_call_that_mlflow_would_not_make(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "mlflow run ." in (said := capsys.readouterr().err) or "-P name=value" in said


def test_without_a_run_of_mlflow_nothing_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID")
    with pytest.raises(SystemExit):
        main(["train"])
    assert "MLFLOW_RUN_ID" in capsys.readouterr().err


def test_text_becomes_what_the_api_would_get_as_json() -> None:
    text = {
        "total_timesteps": "5e3", "learning_rate": "3e-4", "bootstrap": "True", "seed": "7",
        "net_arch": "[32, 16]", "env_kwargs": '{"gravity": -9.8}', "model_name": "123",
        "clip_range_high": "none", "env_name": "Pendulum-v1", "env_workers": "2",
    }  # fmt: skip
    request = request_of(text)
    json_body = TrainRequest.model_validate({
        "total_timesteps": 5000, "learning_rate": 0.0003, "bootstrap": True, "seed": 7,
        "net_arch": [32, 16], "env_kwargs": {"gravity": -9.8}, "model_name": "123",
        "clip_range_high": None, "env_name": "Pendulum-v1", "env_workers": 2,
    })  # fmt: skip
    given = json_body.model_dump(exclude_unset=True)
    assert {name: request.to_dict()[name] for name in given} == given


def test_a_word_beside_numbers_stays_one() -> None:
    assert request_of({"env_workers": "auto"}).config.env_workers == "auto"


def test_parameters_are_pairs() -> None:
    assert parse_parameters(["--seed", "1", "--env_name", "A b"]) == {
        "seed": "1",
        "env_name": "A b",
    }
    with pytest.raises(InvalidRequestError):
        parse_parameters(["--seed"])

"""The guides' code, run block by block against a real server."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.e2e.processes import ROOT, environment, server

USERS_GUIDE = ROOT.parent / "shared/guide/usage_guide_ja.md"
GUIDE_SECONDS = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(GUIDE_SECONDS + 120)]


def run_blocks(guide: Path, folder: Path, *urls: str) -> str:
    """What the blocks print; fails with their output if one raises."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_blocks.py")), str(guide), *urls],
        cwd=folder, env=environment(PYTHONIOENCODING="utf-8"), timeout=GUIDE_SECONDS,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.rotated(13)
@pytest.mark.parametrize(
    ("name", "word"),
    [("guide.md", "return"), pytest.param("guide.ja.md", "収益", marks=pytest.mark.long)],
)
def test_our_guide_runs(name: str, word: str, tmp_path: Path) -> None:
    with server(tmp_path) as running:
        printed = run_blocks(ROOT / "docs" / name, tmp_path, running.url)
    (played,) = re.findall(rf"^{word} (\d+\.\d)$", printed, re.MULTILINE)
    assert float(played) >= 400
    for shown in (
        "completed  100%  5000 steps" if word == "return" else "completed  100%  5000 ステップ",
        "[1, 0]",
        "balance loaded champion",
        "1 promoted The name had no champion.",
        "rolled_back",
        "No model 'no_such_model'",
        "'action': ",
        "stopped",
        "400 Unknown env_name 'CartPol-v1'",
        "422 [{'field': 'learning_rate'",
        "4 finite numbers",
        "completed 1",
        "by_hand",
        "sweep completed {'completed': 3}",
    ):
        assert shown in printed


@pytest.mark.rotated(10)
def test_the_librarys_page_runs(tmp_path: Path) -> None:
    printed = run_blocks(ROOT / "docs" / "library.md", tmp_path)
    (played,) = re.findall(r"^return (\d+\.\d)$", printed, re.MULTILINE)
    assert float(played) >= 400
    for shown in (
        "GRPO(CartPole-v1, MlpPolicy 64×64, optimized_cartpole, 5,000 timesteps)",
        "True (3,)",
        "6000",
        "True callback",
        "exact",
        "<__main__.upright>",
        "2,500 timesteps)",
    ):
        assert shown in printed


@pytest.mark.rotated(11)
def test_the_page_of_environments_runs(tmp_path: Path) -> None:
    run_blocks(ROOT / "docs" / "environments.md", tmp_path)


def test_the_users_guide_runs_unchanged(tmp_path: Path) -> None:
    if not USERS_GUIDE.exists():
        pytest.skip(f"{USERS_GUIDE} is not here")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError:
            if os.environ.get("CI"):
                raise
            pytest.skip("port 8000, which the users' guide names, is in use")
    with server(tmp_path, port=8000) as running:
        printed = run_blocks(USERS_GUIDE, tmp_path)
        models = requests.get(f"{running.url}/models", timeout=30).json()["models"]
    for shown in (
        "{'status': 'healthy', 'timestamp': '",
        "'active_jobs': 0, 'loaded_models': 0}",
        "学習開始: Job ID = ",
        "進捗: 100.0% (5000/5000) - 状態: completed",
        "学習完了: 最終状態 = completed",
        "予測された行動: ",
        "行動確率: [",
        "状態価値: ",
        "  - my_cartpole_model (loaded)",
        "ジョブ 3 開始: ",
        "実行中のジョブ数: ",
        "✅ 学習完了: my_expert_model",
        "観測 3: [-0.3, -0.1, -0.05, -0.1] → 行動: ",
        "バッチ推論結果: [1, 0, ",
        "✅ サーバー接続成功",
    ):
        assert shown in printed
    assert "エラー詳細" not in printed
    assert {
        "my_cartpole_model",
        "model_0",
        "model_1",
        "model_2",
        "simple_model",
        "my_expert_model",
    } <= {model["name"] for model in models}

"""The compose file names settings that exist, holds no secret, and publishes to loopback."""

import re
from pathlib import Path

import yaml

from grpo_platform.core.settings import Settings
from grpo_platform.tracking.ui import CHILD_ENVIRONMENT

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SETTINGS = {f"GRPO_{name.upper()}" for name in Settings.model_fields}


def environments():
    return [service.get("environment", {}) for service in COMPOSE["services"].values()]


def test_every_setting_exists():
    named = {key for found in environments() for key in found if key.startswith("GRPO_")}
    assert named
    assert named <= SETTINGS


def test_the_settings_make_a_server_that_starts(monkeypatch):
    for key, value in COMPOSE["services"]["api"]["environment"].items():
        monkeypatch.setenv(key, re.sub(r"\$\{.*?\}", "x" * 32, value))
    assert not Settings().is_loopback


def test_the_ui_is_ours_and_has_the_token_of_the_api():
    ui, api = COMPOSE["services"]["ui"], COMPOSE["services"]["api"]
    command = ui["command"]
    assert command[command.index("--app-name") + 1] == "grpo"
    assert ui["environment"]["GRPO_API_TOKEN"] == api["environment"]["GRPO_API_TOKEN"]
    for name, value in CHILD_ENVIRONMENT.items():
        assert ui["environment"][name] == value


def test_secrets_come_from_outside_and_are_asked_for():
    for found in environments():
        for key, value in found.items():
            if re.search("TOKEN|PASSWORD", key):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value)
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    offered = re.findall(r"^([A-Z_]+)=$", (DEPLOY / "example.env").read_text(), re.M)
    assert asked == set(offered)


def test_ports_are_published_on_loopback_only():
    published = [p for service in COMPOSE["services"].values() for p in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)

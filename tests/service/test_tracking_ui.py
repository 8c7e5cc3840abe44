"""What is told of a remote MLflow server."""

from grpo_platform.tracking.ui import MlflowUI


def test_the_address_of_a_remote_server_is_told_without_its_password():
    assert MlflowUI("http://me:secret@host:5000/a", "1", 5000).url == "http://host:5000/a"
    assert MlflowUI("https://host", "1", 5000).url == "https://host"
    assert MlflowUI("http://me:a/b@c@host", "1", 5000).url == "http://host"


def test_links_lead_into_the_pages_for_machine_learning():
    assert MlflowUI("sqlite:///x", "7", 0).links is None
    links = MlflowUI("https://host", "7", 5000).links
    assert links is not None
    assert links["runs"] == (
        "https://host/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=grpo"
    )
    assert links["run"] == "https://host/#/experiments/7/runs/"
    assert links["suffix"] == "?workflowType=machine_learning"

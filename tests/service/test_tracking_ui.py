"""What is told of a remote MLflow server."""

from grpo_platform.tracking.ui import MlflowUI


def test_the_address_of_a_remote_server_is_told_without_its_password():
    assert MlflowUI("http://me:secret@host:5000/a", 5000).url == "http://host:5000/a"
    assert MlflowUI("https://host", 5000).url == "https://host"
    assert MlflowUI("http://me:a/b@c@host", 5000).url == "http://host"

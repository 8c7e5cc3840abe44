"""An episode and a session, in this process: what commands do, and that going back is exact."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from grpo import GRPOConfig, Trainer, checkpoint
from grpo.actions import BoxActions, DiscreteActions
from grpo.envs import check_environment
from grpo.errors import IncompatibleError
from grpo.policies import PolicySpec
from grpo_platform.play.episode import Episode
from grpo_platform.play.explaining import explain
from grpo_platform.play.frames import animation, as_json, jpeg, pack, split
from grpo_platform.play.session import Session
from grpo_platform.registry.policy_files import policy_to_files
from tests.odd_environment import ODD
from tests.service.registry_support import PENDULUM, balancing_policy, random_policy


class Viewer:
    def __init__(self):
        self.buffer = bytearray()
        self.seen = []

    def send(self, message):
        self.buffer += message

    def frames(self):
        self.seen += split(self.buffer)
        return self.seen

    def last(self, lane=0):
        return [header for header, _ in self.frames() if header["lane"] == lane][-1]


def files_of(policy, folder):
    folder.mkdir(exist_ok=True)
    for name, content in policy_to_files(policy)._asdict().items():
        (folder / name).write_bytes(content)
    return str(folder)


@pytest.fixture
def viewer():
    return Viewer()


@pytest.fixture
def session(viewer, tmp_path):
    found = Session("CartPole-v1", {}, viewer.send, seed=5)
    found.do({"command": "policy", "name": "best", "path": files_of(balancing_policy(), tmp_path)})
    found.do({"command": "viewers", "viewers": 1})
    yield found
    found.close()


def do(session, command, **arguments):
    return session.do({"command": command, **arguments})


def test_a_frame_has_an_image_and_what_the_policy_thinks(session, viewer):
    do(session, "step", n=3)
    header, message = viewer.frames()[-1]
    image = Image.open(io.BytesIO(message[-header["image_bytes"] :]))
    assert image.format == "JPEG"
    assert max(image.size) <= 640
    assert header["image"] == {"width": image.width, "height": image.height}
    assert (header["step"], header["return"], header["reward"], header["by"]) == (3, 3, 1, "policy")
    assert np.isclose(sum(header["action_probs"]), 1.0)
    assert header["next_action"] == np.argmax(header["action_probs"])
    assert header["state"].keys() == {"x", "x_dot", "theta", "theta_dot"}
    assert np.allclose(header["observation"], list(header["state"].values()), atol=1e-6)


def test_what_is_wound_back_and_gone_on_from_is_the_same_to_the_last_bit(session, viewer):
    do(session, "step", n=60)
    first = session.main.observation.copy()
    do(session, "seek", step=20)
    assert viewer.last()["last_step"] == 60  # what is known beyond stays
    assert viewer.last()["step"] == 20
    do(session, "seek", step=60)
    assert session.main.observation.tobytes() == first.tobytes()
    do(session, "seek", step=20)
    do(session, "step", n=40)
    assert session.main.observation.tobytes() == first.tobytes()


def test_sampled_actions_are_the_same_from_the_same_state(session):
    do(session, "deterministic", deterministic=False)
    do(session, "step", n=50)
    first, actions = session.main.observation.copy(), [int(t.action) for t in session.main.taken]
    assert len(set(actions)) == 2
    do(session, "seek", step=10)
    do(session, "step", n=40)
    assert session.main.observation.tobytes() == first.tobytes()


def test_many_steps_are_kept_in_bounds_and_still_reached_exactly():
    episode = Episode(check_environment("CartPole-v1", {"max_episode_steps": 2000}), 3)
    policy = balancing_policy()
    seen = []
    while not episode.is_over:
        seen.append(episode.observation.copy())
        _, prediction = episode.predict(policy, True)
        episode.take(prediction.actions[0], "policy", policy)
    assert len(seen) > 1000
    assert len(episode._states) <= 513
    for step in (1001, 777, 3, 1002):
        episode.seek(step, policy)
        assert episode.observation.tobytes() == seen[step].tobytes()
    episode.close()


def test_a_human_acts_and_lets_go(session, viewer):
    do(session, "step", n=5)
    do(session, "act", action=0)
    assert viewer.last()["by"] == "human"
    assert viewer.last()["action"] == 0
    do(session, "control", by="human", action=1)
    do(session, "step", n=2)
    assert [t.by for t in session.main.taken[-3:]] == ["human"] * 3
    do(session, "control", by="policy")
    do(session, "step")
    assert session.main.taken[-1].by == "policy"


def test_what_a_human_does_forgets_what_was_known_beyond(session):
    do(session, "step", n=30)
    do(session, "seek", step=10)
    do(session, "act", action=1)
    assert len(session.main.taken) == 11
    with pytest.raises(IncompatibleError, match="steps 0 to 11"):
        do(session, "seek", step=12)


def test_both_continuations_go_on_side_by_side(session, viewer):
    do(session, "step", n=12)
    do(session, "fork", action=0)
    do(session, "step", n=4)
    here, there = viewer.last(0), viewer.last(1)
    assert (here["step"], there["step"]) == (16, 17)
    assert here["state"] != there["state"]
    assert here["lanes"] == 2
    do(session, "unfork", keep=1)
    assert viewer.last()["state"] == there["state"]
    with pytest.raises(IncompatibleError, match="beside"):
        do(session, "unfork")


def test_a_fork_without_an_action_is_the_same_to_the_last_bit(session):
    do(session, "step", n=12)
    do(session, "fork")
    do(session, "step", n=100)
    a, b = session._episodes
    assert a.observation.tobytes() == b.observation.tobytes()


def test_the_state_is_disturbed_and_gone_back_behind(session, viewer):
    do(session, "step", n=10)
    before = session.main.observation.copy()
    do(session, "disturb", state={"theta": 0.15})
    assert viewer.last()["state"]["theta"] == 0.15
    assert viewer.last()["disturbed"] == [10]
    do(session, "step", n=3)
    there = session.main.observation.copy()
    do(session, "seek", step=9)
    do(session, "seek", step=13)
    assert session.main.observation.tobytes() == there.tobytes()
    assert not np.array_equal(before, there)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"height": 1.0}, "no state variable 'height'"),
        ({"theta": "high"}, "cannot be set"),
        ({"theta": [1, 2]}, "one number"),
    ],
)
def test_a_state_that_is_none_changes_nothing(session, state, message):
    do(session, "step", n=4)
    before = session.main.observation.copy()
    with pytest.raises(IncompatibleError, match=message):
        do(session, "disturb", state=state)
    assert session.main.observation.tobytes() == before.tobytes()
    do(session, "step")


def test_one_state_that_cannot_be_drawn_costs_no_other_its_picture(session, viewer):
    do(session, "disturb", state={"x": 1e5})
    assert viewer.last()["image"] is None
    assert "cannot be drawn here" in viewer.last()["why_no_image"]
    do(session, "reset")
    assert viewer.last()["image"] is not None
    do(session, "disturb", state={"x": 1e5})
    assert viewer.last()["image"] is None


def test_a_state_is_known_by_all_that_makes_it_and_by_who_judges_it(session, tmp_path):
    first = do(session, "step", n=3)["frame"]["at"]
    seen = {first}
    for command in (
        {"command": "step"}, {"command": "seek", "step": 2}, {"command": "reset", "seed": 9},
        {"command": "step", "n": 3}, {"command": "disturb", "state": {"x": 0.5}},
    ):  # fmt: skip
        seen.add(session.do(command)["frame"]["at"])
    assert len(seen) == 6
    do(session, "policy", name="other", path=files_of(random_policy(), tmp_path / "other"))
    seen.add(do(session, "pause")["frame"]["at"])
    assert len(seen) == 7
    kept = do(session, "pause")["frame"]["at"]
    do(session, "step", n=4)
    assert do(session, "seek", step=3)["frame"]["at"] == kept


def test_what_is_refused_changes_nothing(session):
    do(session, "step", n=4)
    do(session, "play", speed=2.0)
    for command in (
        {"command": "replay", "actions": [0, 7]}, {"command": "seek", "step": 77},
        {"command": "disturb", "state": {"height": 1.0}},
    ):  # fmt: skip
        with pytest.raises(IncompatibleError):
            session.do(command)
    assert len(session._episodes) == 1
    assert session.header()["playing"]


@pytest.mark.parametrize("action", [2, -1, 0.5, "left", [0], None, True, 10**30])
def test_what_is_no_action_is_refused(session, action):
    with pytest.raises(IncompatibleError, match="no action"):
        do(session, "act", action=action)
    assert session.main.step == 0


def test_a_kept_state_is_a_start_of_a_scenario(session):
    from grpo.scenarios.playing import play_suite
    from grpo_platform.scenarios.grammar import parse_suite

    do(session, "step", n=9)
    kept = json.loads(json.dumps(do(session, "keep")))
    start = [{"snapshot": kept["snapshot"]}]
    suite = parse_suite(
        {"scenarios": [{"name": "here", "start": start, "episodes": 1, "assert": ["return >= 9"]}]}
    )
    result = play_suite(balancing_policy(), suite, "CartPole-v1", {})
    assert result.scenarios[0].mean_length == 491  # the time limit goes on, too


def test_checkpoints_are_chosen_and_followed(session, viewer, tmp_path):
    other = files_of(random_policy(seed=4), tmp_path / "other")
    do(session, "policy", name="next", path=other)
    assert session._checkpoint == "next"
    do(session, "checkpoint", checkpoint="best")
    do(session, "policy", name="third", path=other)
    assert session._checkpoint == "best"  # chosen by hand: the newest one is not followed
    do(session, "checkpoint", checkpoint="third")
    do(session, "policy", name="fourth", path=other)
    assert session._checkpoint == "fourth"
    with pytest.raises(IncompatibleError, match="There are: best, next"):
        do(session, "checkpoint", checkpoint="none")
    for i in range(100):
        do(session, "policy", name=f"{i}", path=other)
    assert len(session._policies) <= 32
    assert next(iter(session._policies)) == "best"


@pytest.mark.parametrize(
    ("by", "speed", "shown"),
    [("policy", 1.0, 3), ("policy", 0.25, 1), ("policy", 2.0, 5), ("human", 1.0, 2)],
)
def test_frames_are_equally_far_apart(session, viewer, by, speed, shown):
    """CartPole takes 50 steps a second; 20 are shown at most, and 30 to who steers."""
    do(session, "control", by=by, action=1)
    do(session, "play", speed=speed)
    begun = session._step_at
    while session.main.step < 9 * shown and not session.main.is_over:
        session.advance(session._step_at)
    steps = [header["step"] for header, _ in viewer.frames() if header["step"]]
    assert steps[:-1] == list(range(shown, steps[-1], shown))
    if not session.main.is_over:
        assert session._step_at - begun == pytest.approx(9 * shown / (50.0 * speed))


def test_a_policy_is_asked_once_about_a_step_that_is_shown(session, monkeypatch):
    asked = []
    predict = session.policy.predict
    monkeypatch.setattr(session.policy, "predict", lambda *a: asked.append(a) or predict(*a))
    do(session, "step", n=3)
    assert len(asked) == 3  # of the first it was when the fixture showed it
    do(session, "deterministic", deterministic=False)
    assert len(asked) == 4
    do(session, "disturb", state={"theta": 0.1})
    assert len(asked) == 5
    do(session, "pause")
    assert len(asked) == 5


def test_time_passes_only_while_somebody_watches(session):
    do(session, "play", speed=2.0)
    assert session.seconds_until_due(0.0) is not None
    do(session, "viewers", viewers=0)
    assert session.seconds_until_due(0.0) is None


def test_viewers_of_a_training_see_one_episode_after_the_other(viewer, tmp_path):
    found = Session("CartPole-v1", {}, viewer.send, endless=True)
    do(found, "viewers", viewers=1)
    do(found, "play", speed=4.0)
    assert found.seconds_until_due(0.0) is None  # no policy yet
    assert viewer.last()["value"] is None
    do(found, "policy", name="0", path=files_of(random_policy(), tmp_path))
    now = 1e9
    while found.main.number < 3:
        found.advance(now)
        now += 2.0
    assert viewer.last()["episode"] == 3
    found.close()


def test_continuous_actions_are_held_within_their_bounds(viewer, tmp_path):
    found = Session("Pendulum-v1", {}, viewer.send)
    do(found, "policy", name="0", path=files_of(random_policy(PENDULUM), tmp_path))
    do(found, "viewers", viewers=1)
    do(found, "act", action=[7.5])
    last = viewer.last()
    assert last["action"] == [2.0]
    assert last["action_probs"] is None
    assert len(last["mean"]) == len(last["std"]) == 1
    result = as_json(explain(found.policy, found.main, continuations=4, horizon=20))
    assert len(result["actions"]) >= 9
    found.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of its viewer
def test_mujoco_is_steered_wound_back_and_explained_also_where_it_cannot_be_drawn(
    viewer, tmp_path, monkeypatch
):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    found = Session("InvertedPendulum-v5", {}, viewer.send)
    spec = PolicySpec(observation_shape=(4,), action=BoxActions((1,), (-3.0,), (3.0,)))
    do(found, "policy", name="0", path=files_of(random_policy(spec), tmp_path))
    do(found, "viewers", viewers=1)
    last = viewer.last()
    assert last["image"] is None
    assert "install libegl1 or libosmesa6" in last["why_no_image"]
    assert len(last["observation"]) == 4
    assert last["state"].keys() == {"qpos", "qvel"}
    do(found, "step", n=3)
    there = found.main.observation.copy()
    do(found, "act", action=[2.5])
    do(found, "seek", step=1)
    do(found, "seek", step=3)
    assert found.main.observation.tobytes() == there.tobytes()
    do(found, "disturb", state={"qvel": [0.5, 0.0]})
    assert viewer.last()["state"]["qvel"] == [0.5, 0.0]
    result = as_json(explain(found.policy, found.main, continuations=4, horizon=20))
    assert len(result["actions"]) == 10  # the preferred one, and nine on a grid
    assert [each["action"][0] for each in result["actions"][1:]] == np.linspace(-3, 3, 9).tolist()
    assert len(result["attribution"]["features"]) == 4
    found.close()


def test_a_policy_that_remembers_is_wound_back_with_its_memory(viewer, tmp_path):
    config = GRPOConfig(
        policy="RecurrentPolicy", policy_kwargs={"gru_hidden_size": 6}, total_timesteps=64, seed=3
    )
    with Trainer(config) as trainer:
        checkpoint.save(tmp_path / "c.npz", trainer.state(), {})
    found = Session("CartPole-v1", {}, viewer.send, seed=5, deterministic=False)
    do(found, "policy", name="0", path=str(tmp_path / "c.npz"))
    do(found, "viewers", viewers=1)
    first = as_json(do(found, "step", n=9)["frame"])
    remembered = found.main.remembered(found.policy)
    assert np.abs(remembered).max() > 0.01
    for step in (4, 9):
        do(found, "seek", step=step)
    assert found.main.remembered(found.policy).tobytes() == remembered.tobytes()
    do(found, "seek", step=4)
    assert as_json(do(found, "step", n=5)["frame"]) == first
    do(found, "fork")
    assert viewer.last(1)["action_probs"] == viewer.last(0)["action_probs"]
    result = as_json(explain(found.policy, found.main, continuations=4, horizon=20))
    assert result == {
        **as_json(explain(found.policy, found.main, continuations=4, horizon=20)),
        "seconds": result["seconds"],
    }
    assert "without masks and memory" in result["why_no_attribution"]
    # what it remembers matters: another past leads elsewhere from the same state
    found.main._memory = np.zeros_like(found.main._memory)
    forgot = found.main.predict(found.policy, deterministic=True)[1]
    assert not np.array_equal(forgot.action_probs[0], first["action_probs"])
    found.close()


def test_what_each_action_leads_to(session):
    do(session, "disturb", state={"theta": 0.18, "theta_dot": 1.4})
    result = as_json(explain(session.policy, session.main, continuations=32, horizon=60))
    best, other = result["actions"]
    assert (best["action"], other["action"]) == (1, 0)  # it falls to the right
    assert len(best["returns"]) == result["continuations"] == 32
    assert best["difference"] is None
    assert other["difference"]["high"] < 0 or other["mean"]["estimate"] == best["mean"]["estimate"]
    again = as_json(explain(session.policy, session.main, continuations=32, horizon=60))
    assert [each["returns"] for each in again["actions"]] == [
        each["returns"] for each in result["actions"]
    ]
    features = result["attribution"]["features"]
    assert [each["name"] for each in features] == ["x", "x_dot", "theta", "theta_dot"]
    added = sum(each["attribution"] for each in features)
    difference = result["attribution"]["at_observation"] - result["attribution"]["at_baseline"]
    assert added == pytest.approx(difference, abs=0.02 * abs(difference) + 1e-3)


def test_a_continuation_that_was_found_is_played_again(session, viewer):
    do(session, "step", n=5)
    result = as_json(explain(session.policy, session.main, continuations=8, horizon=30))
    worst = result["actions"][1]["worst"]
    do(session, "replay", actions=worst)
    other = session._episodes[1]
    assert other.step == 5 + len(worst)
    gained = sum(taken.reward for taken in other.taken[5:])
    assert gained == min(result["actions"][1]["returns"])


def test_what_cannot_be_drawn_or_branched_is_played_with_a_table(viewer, tmp_path):
    found = Session(ODD, {}, viewer.send)
    do(found, "viewers", viewers=1)
    last = viewer.last()
    assert last["image"] is None
    assert "cannot be drawn here" in last["why_no_image"]
    assert len(last["observation"]) == 2
    assert not last["can_branch"]
    assert "No way was exact" in found.describe()["branching_reason"]
    policy = PolicySpec(observation_shape=(2,), action=DiscreteActions(2))
    do(found, "policy", name="0", path=files_of(random_policy(policy), tmp_path))
    do(found, "step", n=3)
    do(found, "act", action=1)
    for command in ({"command": "seek", "step": 1}, {"command": "fork"}, {"command": "keep"}):
        with pytest.raises(IncompatibleError, match="into a visited state"):
            found.do(command)
    with pytest.raises(IncompatibleError, match="into a visited state"):
        explain(found.policy, found.main)
    do(found, "reset")
    found.close()


def test_messages_are_split_wherever_they_are_cut():
    messages = [pack({"type": "frame", "n": i, "x": float("nan")}, bytes(i)) for i in range(3)]
    for size in (1, 7, 1000):
        buffer, found = bytearray(), []
        whole = b"".join(messages)
        for start in range(0, len(whole), size):
            buffer += whole[start : start + size]
            found += list(split(buffer))
        assert [message for _, message in found] == messages
        assert [header["x"] for header, _ in found] == [None] * 3
    with pytest.raises(ValueError, match="too long"):
        list(split(bytearray(b'\n{"ended": 9}')))


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_images_are_small_and_animations_whole(kind):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 900, 3), np.uint8)
    content, width, height = jpeg(noise)
    assert (width, height) == (480, 640)
    assert len(content) <= 128 * 2**10
    film = Image.open(io.BytesIO(animation([noise, noise[::-1], noise], 20, kind)))
    assert (film.format, film.n_frames, film.size) == (kind, 3, (480, 640))

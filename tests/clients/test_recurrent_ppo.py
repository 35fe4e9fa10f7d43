"""sb3-contrib's RecurrentPPO: an LSTM whose states are reset where episodes end, and a policy that is built by name."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the clients: pip install --group clients")
sb3_contrib = pytest.importorskip("sb3_contrib", reason="needs the clients: pip install --group clients")

from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402

import fusedrnn.torch as ft  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Losses(BaseCallback):
    """The last loss of every round of updates, which is logged when the next begins."""

    def __init__(self):
        super().__init__()
        self.of_rounds = []

    def _on_step(self):
        return True

    def _note(self):
        if "train/loss" in self.logger.name_to_value:
            self.of_rounds.append(self.logger.name_to_value["train/loss"])

    _on_rollout_start = _on_training_end = _note


def test_recurrent_ppo(twice):
    def run(accelerated, folder):
        building = ft.accelerating() if accelerated else contextlib.nullcontext()
        with building as report:
            agent = sb3_contrib.RecurrentPPO(
                "MlpLstmPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=2, seed=3, device="cpu",
                policy_kwargs={"lstm_hidden_size": 16, "net_arch": [16]},
            )  # fmt: skip
        if accelerated:
            assert set(report.swapped.values()) == {"LSTM"}
        losses = Losses()
        agent.learn(10 * 32, callback=losses, log_interval=None)
        assert len(losses.of_rounds) == 10
        agent.save(folder / "agent.zip")
        with ft.accelerating() if accelerated else contextlib.nullcontext():
            loaded = sb3_contrib.RecurrentPPO.load(folder / "agent.zip", device="cpu")
        assert isinstance(loaded.policy.lstm_actor, ft.LSTM) == accelerated
        observation, states, actions = agent.env.reset(), None, []
        for k in range(10):
            start = [k == 0]
            again = loaded.predict(observation, states, start, deterministic=True)
            action, states = agent.predict(observation, states, start, deterministic=True)
            np.testing.assert_array_equal(again[0], action)
            np.testing.assert_array_equal(again[1], states)
            observation, *_ = agent.env.step(action)
            actions.append(int(action[0]))
        return {**agent.policy.state_dict(), "losses": losses.of_rounds, "actions": actions, "states": np.stack(states)}

    assert twice(run) > 10 * 32

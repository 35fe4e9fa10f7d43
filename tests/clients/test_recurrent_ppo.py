"""sb3-contrib's RecurrentPPO: an LSTM whose states are reset where episodes end, and a policy that is built by name."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch", reason="needs the clients: pip install --group clients")
sb3_contrib = pytest.importorskip("sb3_contrib", reason="needs the clients: pip install --group clients")

import fusedrnn.torch as ft  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


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
        agent.learn(10 * 32)
        agent.save(folder / "agent.zip")
        with ft.accelerating() if accelerated else contextlib.nullcontext():
            loaded = sb3_contrib.RecurrentPPO.load(folder / "agent.zip", device="cpu")
        assert isinstance(loaded.policy.lstm_actor, ft.LSTM) == accelerated
        observation, states, actions = agent.env.reset(), None, []
        for k in range(10):
            start = [k == 0]
            action, after = agent.predict(observation, states, start, deterministic=True)
            again, _ = loaded.predict(observation, states, start, deterministic=True)
            assert (action == again).all()
            states = after
            observation, *_ = agent.env.step(action)
            actions.append(int(action[0]))
        return {**agent.policy.state_dict(), "actions": actions}

    assert twice(run, rtol=1e-3, atol=1e-4) > 10 * 32

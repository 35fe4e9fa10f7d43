"""PyTorch Geometric's AttentiveFP: graphs, and GRU cells whose output it changes in place."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the clients: pip install --group clients")
nn = pytest.importorskip("torch_geometric.nn", reason="needs the clients: pip install --group clients")

import fusedrnn.torch as ft  # noqa: E402


def test_attentive_fp(twice):
    def build():
        return nn.AttentiveFP(5, 16, 1, edge_dim=3, num_layers=3, num_timesteps=2, dropout=0.1)

    def run(accelerated, folder):
        model = build()
        if accelerated:
            report = ft.accelerate(model)
            assert set(report.swapped.values()) == {"GRUCell"}
            assert not report.left
        x, edge_attr = torch.randn(40, 5), torch.randn(90, 3)
        edge_index, batch = torch.randint(40, (2, 90)), torch.arange(40) // 10
        optimizer, losses = torch.optim.Adam(model.parameters(), 0.01), []
        for _ in range(10):
            optimizer.zero_grad()
            loss = (model(x, edge_index, edge_attr, batch) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.save(model.state_dict(), folder / "model.pt")
        loaded = build()
        if accelerated:
            ft.accelerate(loaded)
        loaded.load_state_dict(torch.load(folder / "model.pt"))
        with torch.no_grad():
            outputs = loaded.eval()(x, edge_index, edge_attr, batch)
            assert torch.equal(outputs, model.eval()(x, edge_index, edge_attr, batch))
        return {"losses": torch.stack(losses), "outputs": outputs}

    assert twice(run) > 10 * 4


def test_aggregations(twice):
    """Set2Set (an LSTM of one step) and GRUAggregation."""

    def run(accelerated, folder):
        aggregations = torch.nn.ModuleList([nn.Set2Set(4, 3), nn.GRUAggregation(8, 6)])
        if accelerated:
            assert len(ft.accelerate(aggregations).swapped) == 2
        optimizer, losses = torch.optim.SGD(aggregations.parameters(), 0.1), []
        x, batch = torch.randn(30, 4), torch.arange(30) // 6
        for _ in range(10):
            optimizer.zero_grad()
            y = aggregations[0](x, batch)
            loss = aggregations[1](y, torch.tensor([0, 0, 0, 1, 1])).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        torch.save(aggregations, folder / "model.pt")
        loaded = torch.load(folder / "model.pt", weights_only=False)
        assert torch.equal(loaded[0](x, batch), aggregations[0](x, batch))
        return {"losses": torch.stack(losses)}

    assert twice(run) == 10 * 4 + 2 * 3

"""Trainers of the PyTorch world over layers on our kernels: DistributedDataParallel, Lightning, Accelerate, loaders."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fusedrnn.torch  # noqa: E402 - needs torch

STEPS, T, N = 6, 5, 8

# A module of its own, for the processes of DistributedDataParallel import it too.
COMMON = """
import torch

class Network(torch.nn.Module):
    '''Each kind of layer and a cell: tokens [N, T] to logits [N, 3].'''

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.lstm = torch.nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True)
        self.gru = torch.nn.GRU(12, 5, batch_first=True)
        self.rnn = torch.nn.RNN(5, 5, batch_first=True)
        self.cell = torch.nn.GRUCell(5, 4)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, tokens):
        y, _ = self.lstm(self.embedding(tokens))
        y, _ = self.gru(y)
        y, _ = self.rnn(y)
        return self.head(self.cell(y[:, -1], self.cell(y[:, 0])))

def network(dtype=torch.float32):
    torch.manual_seed(0)
    return Network().to(dtype)

def batches(steps, rows, columns):
    torch.manual_seed(1)
    tokens = torch.randint(7, (steps, rows, columns))
    return list(zip(tokens, tokens.sum(2) % 3))

def train(model, batches, rows=slice(None)):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    for tokens, target in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens[rows]), target[rows]).backward()
        optimizer.step()

def shard(model):
    '''Each layer alone, and the rest, over all processes; the weights are freed between forward and backward.'''
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for part in (model.lstm, model.gru, model.rnn, model.cell, model):
        fully_shard(part, mesh=mesh)
    return model

def whole(sharded):
    return {name: p.full_tensor().detach() for name, p in sharded.named_parameters()}
"""

MEMBER = """
import os
import sys
import torch
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel
import fusedrnn, fusedrnn.torch
from common import batches, network, shard, train, whole

rank, store, out, sizes = int(sys.argv[1]), sys.argv[2], sys.argv[3], [int(size) for size in sys.argv[4:]]
torch.set_num_threads(1)
fusedrnn.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
model = network(torch.float64)
if rank:
    with torch.no_grad():
        model.head.weight.zero_()  # DistributedDataParallel gives all the first one's
assert len(fusedrnn.torch.accelerate(model).swapped) == 4
half = sizes[1] // 2
rows = slice(rank * half, (rank + 1) * half)
train(DistributedDataParallel(model), batches(*sizes), rows)
found = {"DistributedDataParallel": model.state_dict()}

model = network(torch.float64)
fusedrnn.torch.accelerate(model)
train(shard(model), batches(*sizes), rows)
found["fully_shard"] = whole(model)

model = network(torch.float64)
fusedrnn.torch.accelerate(model)
layers = {type(part) for part in (model.lstm, model.gru, model.rnn, model.cell)}
model = FullyShardedDataParallel(
    model, use_orig_params=True, device_id=torch.device("cpu"), auto_wrap_policy=ModuleWrapPolicy(layers)
)
train(model, batches(*sizes), rows)
with FullyShardedDataParallel.summon_full_params(model):
    parameters = [(name.replace("_fsdp_wrapped_module.", ""), p) for name, p in model.named_parameters()]
    found["FullyShardedDataParallel"] = {name: p.detach().clone() for name, p in parameters}

torch.save(found, f"{out}/{rank}.pt")
torch.distributed.barrier()
os._exit(0)  # without gloo's own end, whose threads may meet another process's
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def common(tmp_path):
    """The module above, which is also beside the programs that processes run."""
    path = tmp_path / "common.py"
    path.write_text(COMMON)
    specification = importlib.util.spec_from_file_location("common", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def on_our_kernels(model):
    report = fusedrnn.torch.accelerate(model)
    assert len(report.swapped) == 4
    assert not report.left
    return model


def test_data_parallel_processes_equal_one_on_the_joint_batch(common, tmp_path):
    (tmp_path / "member.py").write_text(MEMBER)
    command = [sys.executable, str(tmp_path / "member.py")]
    rest = [str(tmp_path / "store"), str(tmp_path), str(STEPS), str(N), str(T)]
    # gloo asks for the address of this host's name, which it need not have
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    members = [
        subprocess.Popen([*command, str(rank), *rest], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for member in members:
        _, errors = member.communicate(timeout=120)
        assert member.returncode == 0, errors
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    theirs = common.network(torch.float64)
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    common.train(theirs, common.batches(STEPS, N, T))
    ours = on_our_kernels(common.network(torch.float64))
    common.train(ours, common.batches(STEPS, N, T))
    assert first.keys() == {"DistributedDataParallel", "fully_shard", "FullyShardedDataParallel"}
    for kind, parameters in first.items():
        assert parameters.keys() == before.keys()
        for name, value in parameters.items():
            assert torch.equal(value, second[kind][name]), (kind, name)
            torch.testing.assert_close(value, ours.state_dict()[name], rtol=0, atol=1e-12, msg=f"{kind} {name}")
            torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=1e-11, msg=f"{kind} {name}")
            assert not torch.allclose(value, before[name], rtol=0, atol=1e-7), f"{kind}: {name} was not trained"


@pytest.mark.filterwarnings("ignore")  # of views that a layer returns, as PyTorch's own does
def test_a_model_sharded_over_one_process_reaches_the_same(common, monkeypatch):
    """The weights of a layer are freed after its forward all the same, and gathered again for its backward."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        sharded = common.shard(on_our_kernels(common.network(torch.float64)))
        common.train(sharded, common.batches(STEPS, N, T))
        found = common.whole(sharded)
    finally:
        torch.distributed.destroy_process_group()
    theirs = common.network(torch.float64)
    common.train(theirs, common.batches(STEPS, N, T))
    for name, value in found.items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=1e-11, msg=name)


def close(ours, theirs):
    assert len(ours) == len(theirs) == STEPS
    assert len(set(theirs)) == STEPS, "a loss that training changes"
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)


# what these trainers warn of is theirs
@pytest.mark.filterwarnings("ignore")
def test_lightning_reaches_the_same_losses(common, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Learner(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model, self.losses = model, []

        def training_step(self, batch, i):
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.05)

    def losses(model):
        learner = Learner(model)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, gradient_clip_val=1.0, enable_checkpointing=False,
            default_root_dir=tmp_path, **quiet,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(common.batches(STEPS, N, T), batch_size=None)
        trainer.fit(learner, loader)
        return learner.losses

    ours = on_our_kernels(common.network())
    close(losses(ours), losses(common.network()))
    assert isinstance(ours.lstm, fusedrnn.torch.LSTM)


@pytest.mark.filterwarnings("ignore")
def test_accelerate_reaches_the_same_losses(common):
    accelerate = pytest.importorskip("accelerate")

    def losses(model):
        accelerator = accelerate.Accelerator(cpu=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        loader = torch.utils.data.DataLoader(common.batches(STEPS, N, T), batch_size=None)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        found = []
        for tokens, target in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(tokens), target)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            found.append(loss.item())
        assert accelerator.unwrap_model(model).lstm.weight_hh_l0.grad is not None
        return found

    ours = on_our_kernels(common.network())
    close(losses(ours), losses(common.network()))
    assert isinstance(ours.gru, fusedrnn.torch.GRU)


# JAX, where another test of this process imported it, warns of any fork.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("count", [1, 2])
def test_a_layer_works_in_forked_workers_of_a_loader(threads, count):
    """Forward and backward, after the process that forks them has used its threads on the same layer."""
    threads(2)
    torch.manual_seed(0)
    layer = torch.nn.LSTM(8, 32)
    fusedrnn.torch.accelerate(layer)
    xs = torch.randn(4, 6, 200, 8)

    class Features(torch.utils.data.Dataset):
        def __len__(self):
            return len(xs)

        def __getitem__(self, i):
            layer.zero_grad()
            y, _ = layer(xs[i])
            y.square().sum().backward()
            return y[-1].detach(), layer.weight_hh_l0.grad.clone()

    here = [Features()[i] for i in range(len(xs))]
    loader = torch.utils.data.DataLoader(
        Features(), batch_size=None, num_workers=count, multiprocessing_context="fork", timeout=60
    )
    there = list(loader)
    assert len(there) == len(xs)
    for (y, gradient), (other_y, other_gradient) in zip(here, there, strict=True):
        assert torch.equal(y, other_y)
        assert torch.equal(gradient, other_gradient)
    again, _ = Features()[0]
    assert torch.equal(again, here[0][0])

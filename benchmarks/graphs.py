"""Peers that compile a graph first: ONNX Runtime (inference alone) and JAX (a scan under jit)."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers import LEARNING_RATE, Unsupported
from benchmarks.workloads import Array, Workload

# ONNX's order of gates, as quarters (thirds) of PyTorch's: i o f c, and z r h
_ONNX_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


class OnnxRuntime:
    """ONNX Runtime's own recurrent operators on the CPU."""

    def __init__(self, workload: Workload, threads: int) -> None:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        w = self.workload = workload
        if w.mode == "train" or w.dtype != "float32":
            raise Unsupported("ONNX Runtime runs float32 inference")
        weights = w.weights()
        order = _ONNX_GATES[w.cell]

        def reordered(a: Array) -> Array:
            parts = np.split(a, w.gates)
            return np.ascontiguousarray(np.concatenate([parts[g] for g in order]))

        constants, nodes, feeds, outputs = [], [], [], []
        names = ("h", "c") if w.cell == "lstm" else ("h",)
        y = "x"
        for layer in range(w.L):
            parts = {k: weights[f"rnn.{k}_l{layer}"] for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
            bias = np.concatenate([reordered(parts["bias_ih"]), reordered(parts["bias_hh"])])
            arrays = (reordered(parts["weight_ih"]), reordered(parts["weight_hh"]), bias)
            inputs = [y]
            for name, array in zip(("W", "R", "B"), arrays, strict=True):
                constants.append(numpy_helper.from_array(array[None], f"{name}{layer}"))
                inputs.append(f"{name}{layer}")
            inputs += ["", *(f"{s}0_{layer}" for s in names)]
            feeds += [helper.make_tensor_value_info(f"{s}0_{layer}", TensorProto.FLOAT, [1, w.N, w.H]) for s in names]
            produced = [f"y4_{layer}", *(f"{s}n_{layer}" for s in names)]
            outputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, w.N, w.H]) for n in produced[1:]]
            options = {"linear_before_reset": 1} if w.cell == "gru" else {}
            nodes.append(helper.make_node(w.cell.upper(), inputs, produced, hidden_size=w.H, **options))
            y = f"y_{layer}"  # [T, 1, N, H] without the directions
            nodes.append(helper.make_node("Squeeze", [produced[0], "one"], [y]))
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [w.T, w.N, w.I])
        top = helper.make_tensor_value_info(y, TensorProto.FLOAT, [w.T, w.N, w.H])
        graph = helper.make_graph(nodes, w.name, [x, *feeds], [top, *outputs], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        zero = np.zeros((1, w.N, w.H), np.float32)
        self.feed = {"x": w.batch()[0], **{feed.name: zero for feed in feeds}}
        self.wanted = [top.name, *(o.name for o in outputs)] if w.mode == "step" else [top.name]
        self.y: Array | None = None

    def run(self) -> None:
        found = self.session.run(self.wanted, self.feed)
        self.y = found[0]
        if self.workload.mode == "step":
            self.feed.update(zip([name for name in self.feed if name != "x"], found[1:], strict=True))

    def results(self) -> dict[str, Array]:
        assert self.y is not None
        return {"y": self.y}


class Jax:
    """The equations as a scan over time, compiled by XLA; in training with its own gradients and Adam."""

    def __init__(self, workload: Workload, threads: int) -> None:
        del threads  # XLA takes them from the affinity mask
        import jax
        import jax.numpy as jnp

        w = self.workload = workload
        jax.config.update("jax_enable_x64", w.dtype == "float64")
        self.jax = jax
        self.weights = {name: jnp.asarray(a) for name, a in w.weights().items()}
        x, target = w.batch()
        self.x, self.target = jnp.asarray(x), jnp.asarray(target)
        zero = jnp.zeros((w.N, w.H), w.dtype)
        self.states: Any = [(zero, zero) if w.cell == "lstm" else (zero,) for _ in range(w.L)]
        self.moments: Any = [jax.tree.map(jnp.zeros_like, self.weights) for _ in range(2)]
        self.found: Any = None
        self.count = 0

        def cell(state: Any, z: Any, weight_hh: Any, bias_hh: Any) -> Any:
            h = state[0]
            if w.cell == "gru":
                r, u, n = jnp.split(z, 3, 1)
                hr, hu, hn = jnp.split(h @ weight_hh.T + bias_hh, 3, 1)
                r, u = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(u + hu)
                n = jnp.tanh(n + r * hn)
                return ((1 - u) * n + u * h,)
            z = z + h @ weight_hh.T + bias_hh
            if w.cell == "rnn":
                return (jnp.tanh(z),)
            i, f, g, o = jnp.split(z, 4, 1)
            c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jax.nn.sigmoid(o) * jnp.tanh(c), c

        def forward(weights: Any, x: Any, states: Any) -> Any:
            y, last = x, []
            for layer in range(w.L):
                product = y @ weights[f"rnn.weight_ih_l{layer}"].T + weights[f"rnn.bias_ih_l{layer}"]
                weight_hh, bias_hh = weights[f"rnn.weight_hh_l{layer}"], weights[f"rnn.bias_hh_l{layer}"]

                def advance(state: Any, z: Any, weight_hh: Any = weight_hh, bias_hh: Any = bias_hh) -> Any:
                    state = cell(state, z, weight_hh, bias_hh)
                    return state, state[0]

                state, y = jax.lax.scan(advance, states[layer], product)
                last.append(state)
            return y, last

        def loss(weights: Any, x: Any, states: Any, target: Any) -> Any:
            y, _ = forward(weights, x, states)
            logits = (y if w.every_step else y[-1]) @ weights["head.weight"].T + weights["head.bias"]
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1))

        def train(weights: Any, moments: Any, x: Any, states: Any, target: Any, count: Any) -> Any:
            value, found = jax.value_and_grad(loss, (0, 1) if w.input_grad else (0,))(weights, x, states, target)
            gradients = found[0]
            m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, moments[0], gradients)
            v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, moments[1], gradients)
            scale = LEARNING_RATE / (1 - 0.9**count)
            weights = jax.tree.map(
                lambda p, a, b: p - scale * a / (jnp.sqrt(b / (1 - 0.999**count)) + 1e-8), weights, m, v
            )
            return weights, [m, v], found, value

        self._forward, self._train = jax.jit(forward), jax.jit(train)

    def run(self) -> None:
        w = self.workload
        if w.mode == "train":
            self.count += 1
            done = self._train(self.weights, self.moments, self.x, self.states, self.target, float(self.count))
            self.weights, self.moments, (self.found, *_), _ = self.jax.block_until_ready(done)
            return
        y, states = self._forward(self.weights, self.x, self.states)
        if w.mode == "step":
            self.states = states
        self.found = {"y": self.jax.block_until_ready(y)}

    def results(self) -> dict[str, Array]:
        return {name: np.asarray(a) for name, a in self.found.items()}

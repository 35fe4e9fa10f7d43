"""PyTorch's compiler over the same model. Compiling takes from seconds to minutes, so only where it is asked for."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from typing import Any

from benchmarks.peers import PyTorch, Unsupported
from benchmarks.workloads import Array, Workload


def own_cache() -> None:
    """A folder of this process for what is compiled, and no pool of workers."""
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="inductor-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        tempfile.tempdir = folder  # where the compiler puts its precompiled headers, whatever its cache is
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of workers beside the measurement


class CompiledPyTorch(PyTorch):
    """Forward and loss under ``torch.compile``; Adam as PyTorch has it.

    By default the compiler steps around recurrent layers, which would time the eager ones once more; so they are
    allowed into the graph. oneDNN's LSTM layer has no traceable backward, so that training goes without it.
    """

    def __init__(self, workload: Workload, threads: int) -> None:
        own_cache()
        super().__init__(workload, threads)
        torch = self.torch
        if not hasattr(torch._dynamo.config, "allow_rnn"):
            raise Unsupported(f"PyTorch {torch.__version__}'s compiler leaves recurrent layers out of its graphs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it also sets, and warns of, what only GPUs have
            torch.backends.mkldnn.set_flags(not (workload.cell == "lstm" and workload.mode == "train"))
        torch._dynamo.config.allow_rnn = True
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        self.compiled = torch.compile(self._loss if workload.mode == "train" else self._recurrent)
        self.traced = False
        self.recurrent = self.loss = self._checked

    def _checked(self, *arguments: Any) -> Any:
        """The compiled call; Unsupported where the first shows that nothing could be compiled."""
        if self.traced:
            return self.compiled(*arguments)
        try:
            found = self.compiled(*arguments)
        except Exception as error:
            raise Unsupported(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}") from None
        counters = self.torch._dynamo.utils.counters
        if not counters["stats"]["unique_graphs"]:
            reasons = [str(reason).splitlines()[0] for reason in counters["graph_break"]]
            raise Unsupported(f"torch.compile: no graph: {'; '.join(reasons) or 'no reason given'}")
        self.traced = True
        return found

    def results(self) -> dict[str, Array]:
        """As PyTorch's."""
        if self.y is not None:
            return {"y": self.y.numpy().copy()}
        return super().results()

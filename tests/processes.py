"""Processes of tests/test_distributed.py: threads over a communicator that has what is used of mpi4py's."""

from __future__ import annotations

import pickle
import threading
from types import SimpleNamespace

import numpy as np

from fusedrnn.train.distributed import MpiWorld


class Aborted(Exception):
    pass


class Group:
    """What the members of a communicator share."""

    def __init__(self, size):
        self.size, self.slots = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=30)
        self.arrived, self.lock, self.aborted = 0, threading.Lock(), []


class Threads:
    """The part of mpi4py's communicators that is used, its members threads of this process."""

    def __init__(self, group, rank):
        self.group, self.rank = group, rank
        self.barriers = 0

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.group.size

    def allgather(self, value):
        with self.group.lock:
            self.group.arrived += 1  # MPI would take it for the barrier that another member is waiting in
        self.group.slots[self.rank] = pickle.dumps(value)
        self.group.barrier.wait()
        found = list(self.group.slots)
        self.group.barrier.wait()
        return [pickle.loads(part) for part in found]

    def bcast(self, value):
        received = self.allgather(value if self.rank == 0 else None)[0]
        return value if self.rank == 0 else received

    def Bcast(self, array):
        array[...] = self.bcast(array)

    def Allreduce(self, send, array):
        assert send is None
        array[...] = np.sum(self.allgather(array), axis=0)

    def Dup(self):
        other = Group(self.group.size)
        self.group.slots[self.rank] = other
        self.group.barrier.wait()
        chosen = self.group.slots[0]
        self.group.barrier.wait()
        return Threads(chosen, self.rank)

    def Ibarrier(self):
        self.barriers += 1
        with self.group.lock:
            self.group.arrived += 1
        return SimpleNamespace(Test=lambda: self.group.arrived >= self.barriers * self.group.size)

    def Abort(self, code):
        self.group.aborted.append((self.rank, code))
        self.group.barrier.abort()
        raise Aborted


def together(size, function, patience=5.0):
    """``function(world)`` in so many threads; what each returned or raised, and which of them aborted."""
    group = Group(size)
    results = [None] * size

    def member(rank):
        try:
            results[rank] = function(MpiWorld(Threads(group, rank), patience=patience))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a process hangs"
    return results, [rank for rank, _ in group.aborted]

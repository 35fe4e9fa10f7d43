"""The order of a stage's tasks, and elementwise ones in groups that go through the cache together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import prod

from fusedrnn.scan.graph import Value
from fusedrnn.scan.tasks import Task
from fusedrnn.scan.views import View

# Places that a group may read and write: the executor has room for 64.
MOST_PLACES = 56


@dataclass(eq=False)
class Group:
    """Elementwise tasks over as many elements.

    Attributes:
        size: Elements of one row.
        tasks: In an order in which they can be computed.
        memory: Values that others read, and so must be written to memory.
    """

    size: int
    tasks: list[Task]
    memory: set[Value] = field(default_factory=set)


def is_direct(view: View, size: int) -> bool:
    """Whether a group can read it element by element where it lies."""
    return view.contiguous and prod(view.shape) == size


class _Ready:
    """Tasks whose readers are all placed: the order is made from its end."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.place = {task: i for i, task in enumerate(tasks)}
        final = {task.writes: task for task in tasks if task.writes is not None and task.final}
        self.needs: dict[Task, set[Task]] = {}
        self.waiting = dict.fromkeys(tasks, 0)
        for task in tasks:
            needs = {final[view.base] for view in task.reads if view.base in final}
            if task.before is not None:
                needs.add(task.before)
            needs.discard(task)
            self.needs[task] = needs
            for need in needs:
                self.waiting[need] += 1
        self.left = len(tasks)
        self.now: set[Task] = set()
        self.heaps: dict[bool, list[tuple[int, Task]]] = {True: [], False: []}  # of elementwise tasks, of others
        for task in tasks:
            if not self.waiting[task]:
                self._add(task)

    def _add(self, task: Task) -> None:
        self.now.add(task)
        heappush(self.heaps[task.kind == "element"], (-self.place[task], task))

    def take(self, task: Task) -> None:
        self.now.discard(task)
        self.left -= 1
        for need in self.needs[task]:
            self.waiting[need] -= 1
            if not self.waiting[need]:
                self._add(need)

    def last(self, *, element: bool) -> Task | None:
        heap = self.heaps[element]
        while heap and heap[0][1] not in self.now:
            heappop(heap)
        return heap[0][1] if heap else None


def order(tasks: Sequence[Task]) -> list[Task | Group]:
    """All tasks of a stage, each as late as it can be, so that a group computes what it reads; but what a sequence
    stores goes there at once."""
    stores = [task for task in tasks if task.writes is None and task.kind == "store"]
    ready = _Ready([task for task in tasks if task.writes is not None or task.kind != "store"])
    readers: dict[Value, list[Task]] = {}
    for task in tasks:
        for view in task.reads:
            readers.setdefault(view.base, []).append(task)
    found: list[Task | Group] = []
    while ready.now:
        alone = ready.last(element=False)
        if alone is not None:
            ready.take(alone)
            found.append(alone)
            continue
        element = ready.last(element=True)
        assert element is not None
        group = _gather(ready, element)
        inside = set(group.tasks)
        for each in group.tasks:
            if each.writes is not None and (
                not each.final or any(reader not in inside for reader in readers.get(each.writes, ()))
            ):
                group.memory.add(each.writes)
        found.append(group)
    if ready.left:
        raise AssertionError("tasks wait for each other: this may be a bug of fusedrnn")
    return _with_stores(found[::-1], stores)


def _with_stores(ordered: Sequence[Task | Group], stores: Sequence[Task]) -> list[Task | Group]:
    """Puts each store behind what it stores."""
    after: dict[Value, list[Task]] = {}
    for store in stores:
        after.setdefault(store.reads[0].base, []).append(store)
    found: list[Task | Group] = []
    for each in ordered:
        found.append(each)
        for task in each.tasks if isinstance(each, Group) else [each]:
            if task.final and task.writes is not None:
                found += after.pop(task.writes, [])
    return [*(store for left in after.values() for store in left), *found]


def _gather(ready: _Ready, first: Task) -> Group:
    group = Group(first.size, [])
    apart: set[Value] = set()  # that the group reads elsewhere than element by element
    places: set[object] = set()
    added = True
    while added:
        added = False
        candidates = [task for task in ready.now if task.kind == "element" and task.size == first.size]
        for task in sorted(candidates, key=ready.place.__getitem__, reverse=True):
            if task.writes in apart:
                continue
            more = places | {(view.base, view.offset, view.strides) for view in task.reads} | {task.writes or task}
            if len(more) > MOST_PLACES and group.tasks:
                continue
            places = more
            group.tasks.append(task)
            apart |= {view.base for view in task.reads if not is_direct(view, task.size) or view.offset}
            ready.take(task)
            added = True
    group.tasks.reverse()
    return group

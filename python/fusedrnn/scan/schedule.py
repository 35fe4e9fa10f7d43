"""The order of a stage's tasks, and elementwise ones in groups that go through the cache together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    return view.contiguous and _size(view) == size


def _size(view: View) -> int:
    size = 1
    for n in view.shape:
        size *= n
    return size


class _Ready:
    """Tasks whose inputs are there."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.place = {task: i for i, task in enumerate(tasks)}
        final = {task.writes: task for task in tasks if task.writes is not None and task.final}
        self.followers: dict[Task, list[Task]] = {task: [] for task in tasks}
        self.missing = dict.fromkeys(tasks, 0)
        for task in tasks:
            needs = {final[view.base] for view in task.reads if view.base in final}
            if task.before is not None:
                needs.add(task.before)
            needs.discard(task)
            self.missing[task] = len(needs)
            for need in needs:
                self.followers[need].append(task)
        self.now = {task for task in tasks if not self.missing[task]}
        self.done = 0

    def take(self, task: Task) -> None:
        self.now.discard(task)
        self.done += 1
        for follower in self.followers[task]:
            self.missing[follower] -= 1
            if not self.missing[follower]:
                self.now.add(follower)

    def first(self, *, element: bool) -> Task | None:
        found = [task for task in self.now if (task.kind == "element") is element]
        return min(found, key=self.place.__getitem__) if found else None


def order(tasks: Sequence[Task]) -> list[Task | Group]:
    """All tasks of a stage: what is no group as soon as it can be, then the largest group that can be."""
    ready = _Ready(tasks)
    readers: dict[Value, list[Task]] = {}
    for task in tasks:
        for view in task.reads:
            readers.setdefault(view.base, []).append(task)
    found: list[Task | Group] = []
    while ready.now:
        task = ready.first(element=False)
        if task is not None:
            ready.take(task)
            found.append(task)
            continue
        task = ready.first(element=True)
        assert task is not None
        group = _gather(ready, task)
        inside = set(group.tasks)
        for each in group.tasks:
            if each.writes is not None and (
                not each.final or any(reader not in inside for reader in readers.get(each.writes, ()))
            ):
                group.memory.add(each.writes)
        found.append(group)
    if ready.done != len(tasks):
        raise AssertionError("tasks wait for each other: this may be a bug of fusedrnn")
    return found


def _gather(ready: _Ready, first: Task) -> Group:
    group = Group(first.size, [])
    written: set[Value] = set()
    places: set[object] = set()
    added = True
    while added:
        added = False
        candidates = [task for task in ready.now if task.kind == "element" and task.size == first.size]
        for task in sorted(candidates, key=ready.place.__getitem__):
            inner = [view for view in task.reads if view.base in written]
            if not all(is_direct(view, task.size) and view.offset == 0 for view in inner):
                continue
            more = places | {(view.base, view.offset) for view in task.reads} | {task.writes or task}
            if len(more) > MOST_PLACES and group.tasks:
                continue
            places = more
            group.tasks.append(task)
            if task.writes is not None:
                written.add(task.writes)
            ready.take(task)
            added = True
    return group

"""Tasks, each from data to figure to picture in one file, by the name that ``fusedrnn train`` knows."""

from __future__ import annotations

from fusedrnn.tasks.adding_problem import ADDING_PROBLEM
from fusedrnn.tasks.addition import ADDITION
from fusedrnn.tasks.count_ones import COUNT_ONES
from fusedrnn.tasks.forecast import FORECAST
from fusedrnn.tasks.lorenz import LORENZ
from fusedrnn.tasks.mnist import MNIST
from fusedrnn.tasks.polygon import POLYGON
from fusedrnn.tasks.sentiment import SENTIMENT
from fusedrnn.tasks.task import Options, Preset, Run, SampleOptions, Task, TaskOption
from fusedrnn.tasks.text import TEXT

_ALL = (COUNT_ONES, ADDITION, MNIST, ADDING_PROBLEM, POLYGON, SENTIMENT, TEXT, FORECAST, LORENZ)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

__all__ = ["TASKS", "Options", "Preset", "Run", "SampleOptions", "Task", "TaskOption"]

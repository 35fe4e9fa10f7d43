"""Tasks, each from data to figure to picture in one file, by the name that ``fusedrnn train`` knows."""

from __future__ import annotations

from fusedrnn.tasks.adding_problem import ADDING_PROBLEM
from fusedrnn.tasks.addition import ADDITION
from fusedrnn.tasks.caption import CAPTION
from fusedrnn.tasks.count_ones import COUNT_ONES
from fusedrnn.tasks.dnc_babi import DNC_BABI
from fusedrnn.tasks.dnc_copy import DNC_COPY
from fusedrnn.tasks.dnc_graph import DNC_GRAPH
from fusedrnn.tasks.dnc_reuse import DNC_REUSE
from fusedrnn.tasks.forecast import FORECAST
from fusedrnn.tasks.handwriting import HANDWRITING
from fusedrnn.tasks.lorenz import LORENZ
from fusedrnn.tasks.mnist import MNIST
from fusedrnn.tasks.ntm_copy import NTM_COPY
from fusedrnn.tasks.ntm_ngram import NTM_NGRAM
from fusedrnn.tasks.ntm_recall import NTM_RECALL
from fusedrnn.tasks.ntm_repeat_copy import NTM_REPEAT_COPY
from fusedrnn.tasks.ntm_sort import NTM_SORT
from fusedrnn.tasks.polygon import POLYGON
from fusedrnn.tasks.sentiment import SENTIMENT
from fusedrnn.tasks.task import Options, Preset, Run, SampleOptions, Task, TaskOption
from fusedrnn.tasks.text import TEXT
from fusedrnn.tasks.translate import TRANSLATE

_LECTURE = (COUNT_ONES, ADDITION, MNIST, ADDING_PROBLEM, POLYGON, SENTIMENT, TEXT, FORECAST, LORENZ)
_NTM = (NTM_COPY, NTM_REPEAT_COPY, NTM_RECALL, NTM_NGRAM, NTM_SORT)
_DNC = (DNC_COPY, DNC_REUSE, DNC_GRAPH, DNC_BABI)
_SEQUENCES = (HANDWRITING, CAPTION, TRANSLATE)
_ALL = (*_LECTURE, *_NTM, *_DNC, *_SEQUENCES)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

__all__ = ["TASKS", "Options", "Preset", "Run", "SampleOptions", "Task", "TaskOption"]

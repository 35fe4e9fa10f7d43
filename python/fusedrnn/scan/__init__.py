"""Any recurrence as a program: a step of one sequence, traced, differentiated, planned and run in C++.

In the order of the work:

- a call: ``trees`` and ``leaves`` (structures of arrays), ``arguments``, ``call``, ``packing``; ``program`` and
  ``closures`` (which program serves it);
- the step's graph: ``graph``, ``instructions``, ``evaluate`` (what each computes); ``tracing`` with ``trace``,
  ``traced`` and a file for each kind of NumPy's functions;
- its derivative: ``derivative``, ``rules``;
- its plan: ``turned``, ``kept``, ``views``, ``tasks``, ``schedule``, ``groups``, ``plan``, ``encode``;
- its run: ``execute``, and ``text``, which print shows. csrc/README.md goes on from there.
"""

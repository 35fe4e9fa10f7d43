"""Any recurrence as a program: a step of one sequence, traced, differentiated, planned and run in C++.

In the order of the work: ``trees`` and ``leaves`` (structures of arrays), ``arguments``, ``call`` and ``packing`` (what a
call was given), ``program`` and ``closures`` (which program serves it); ``tracing`` with ``traced`` and NumPy's functions
(the step's graph), ``graph`` and ``instructions`` (what a graph is), ``evaluate`` (what each instruction computes);
``derivative`` and ``rules``; ``kept``, ``views``, ``tasks``, ``schedule``, ``groups``, ``plan`` and ``encode`` (the plan);
``execute`` (its run), ``text`` (what print shows). csrc/README.md goes on from there.
"""

"""Bugs for the tests to find: derivatives, the reference."""

from __future__ import annotations

from tests.planted.bug import Bug

BUGS = (
    Bug(
        "jvp_does_not_check_its_arguments",
        "python/fusedrnn/differentiation/forward_mode.py",
        "        forward(**given)  # the compiled function checks its arguments, the reference does not\n",
        "        pass\n",
        "tests/test_forward_mode.py",
    ),
    Bug(
        "zoneout_of_the_reference_keeps_all_but_the_last_digit",
        "python/fusedrnn/reference/random.py",
        "state: Array = k * before + (1 - k) * after",
        "state: Array = after + k * (before - after)",
        "tests/test_zoneout.py",
    ),
)

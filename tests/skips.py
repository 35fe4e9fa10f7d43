"""What was skipped is run later: hooks of tests/conftest.py.

A run remembers in pytest's cache which tests it skipped. After more was installed, `--only-skipped` runs these alone,
or all tests where no run came before. `--no-skips` turns skips into failures, but for reasons in `MAY_BE_SKIPPED`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

KEY = "fusedrnn/skipped"
# Part of the reason given -> why nothing that a stage installs would help.
MAY_BE_SKIPPED = {
    "there is a GPU": "the test is of machines without one",
    "this one has it": "the test is of processors that lack bfloat16",
    "no bfloat16 on this processor": "the test compares with PyTorch's own, which needs the instructions",
    "binds the process to one core": "the machine has one core",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("skips")
    group.addoption("--only-skipped", action="store_true", help="run what earlier runs skipped and no later one ran")
    group.addoption("--no-skips", action="store_true", help="fail on skips for want of something that can be installed")
    group.addoption("--may-skip", action="append", default=[], metavar="REASON", help="with --no-skips: but for these")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Skips(config), "skips")


class Skips:
    """Node ids of tests, and of modules that were skipped as a whole."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.cache: pytest.Cache | None = getattr(config, "cache", None)  # None: -p no:cacheprovider
        recorded = self.cache.get(KEY, None) if self.cache else None
        self.skipped: set[str] = set(recorded or ())
        self.chosen = None if recorded is None else frozenset(recorded)  # None: no run came before

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.config.getoption("--only-skipped") and self.chosen is not None:
            others = [i for i in items if not {i.nodeid, i.nodeid.split("::")[0]} & self.chosen]
            self.config.hook.pytest_deselected(items=others)
            left_out = set(others)
            items[:] = [i for i in items if i not in left_out]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        outcome: Any = yield
        self._judge(outcome.get_result())

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self) -> Iterator[None]:
        outcome: Any = yield
        self._judge(outcome.get_result())

    def _judge(self, report: Any) -> None:
        """A skip that no stage could have avoided stays one; others fail under `--no-skips`."""
        if not (self.config.getoption("--no-skips") and report.skipped) or hasattr(report, "wasxfail"):
            return
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(part in reason for part in (*MAY_BE_SKIPPED, *self.config.getoption("--may-skip"))):
            report.outcome = "failed"
            report.longrepr = f"{reason}\n--no-skips: install what is missing, or add the reason to tests/skips.py"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.skipped -= {report.nodeid, report.nodeid.split("::")[0]}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if self.cache and not hasattr(self.config, "workerinput"):  # a worker of xdist sees a part alone
            self.cache.set(KEY, sorted(self.skipped))

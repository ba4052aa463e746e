"""A pytest plugin that writes down which tests reach which lines, and how long each test takes.

What runs in a fixture that tests share counts for every test that asks for the fixture.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest

OUT = "MUTANTS_REACH"
"""Names the file to write; beside it stands the list of modules to watch."""


class Reach:
    """Switches coverage's context from test to test."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._watch = coverage.Coverage(
            data_file=str(out.with_suffix(".coverage")),
            include=json.loads(out.with_suffix(".files").read_text()),
            config_file=False,
        )
        self._watch.start()
        self._seconds: dict[str, float] = defaultdict(float)
        self._users: dict[str, list[str]] = defaultdict(list)
        self._failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._users[item.nodeid].append(item.nodeid)
        for name in getattr(item, "fixturenames", ()):
            self._users[name].append(item.nodeid)
        self._watch.switch_context(item.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        self._watch.switch_context(f"{fixturedef.argname} {fixturedef.baseid}")
        try:
            return (yield)
        finally:
            self._watch.switch_context(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if not report.passed:  # a skipped test finds nothing either
            self._failed.add(report.nodeid)

    def pytest_unconfigure(self) -> None:
        self._watch.stop()
        data, lines = self._watch.get_data(), {}
        root = f"{Path.cwd()}{os.sep}"
        tests = [test for test in self._seconds if test not in self._failed]
        place = {test: index for index, test in enumerate(tests)}
        for file in data.measured_files():
            lines[file.removeprefix(root)] = {
                line: sorted({place[test] for test in self._tests(contexts) if test in place})
                for line, contexts in data.contexts_by_lineno(file).items()
            }
        seconds = {test: round(self._seconds[test], 3) for test in tests}
        self._out.write_text(json.dumps({"seconds": seconds, "lines": lines}))

    def _tests(self, contexts: list[str]) -> set[str]:
        """The tests themselves, and of a fixture those beside it that ask for it."""
        found: set[str] = set()
        for context in contexts:
            name, _, place = ("", "", "") if "::" in context else context.partition(" ")
            users = self._users.get(name or context, ())
            found.update(test for test in users if test.startswith(place))
        return found


if OUT in os.environ:

    def pytest_configure(config: pytest.Config) -> None:
        config.pluginmanager.register(Reach(Path(os.environ[OUT])))

"""The fuzzers' clock and table."""
from dataclasses import asdict

import pytest

from fuzzing import Fuzzer, Tally, table

_PROPERTY = "fuzz tally"
_tallies = []


@pytest.fixture
def fuzzer(request, record_property):
    made = Fuzzer(request.config.getoption("--fuzz-minutes"), request.config.getoption("--fuzz-seed"))
    yield made
    for tally in made.tallies:
        record_property(_PROPERTY, asdict(tally))


def pytest_runtest_logreport(report):
    """Gathers what the tests have recorded, in whichever process they ran."""
    if report.when == "teardown":
        _tallies.extend(Tally(**value) for name, value in report.user_properties if name == _PROPERTY)


def pytest_terminal_summary(terminalreporter):
    if _tallies:
        terminalreporter.section("fuzzing")
        terminalreporter.write_line(table(_tallies))

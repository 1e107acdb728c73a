"""The fuzzers' clock and table."""
import pytest
from fuzzing import Fuzzer

_KEY = pytest.StashKey()


@pytest.fixture(scope="session")
def fuzzer(request):
    config = request.config
    if _KEY not in config.stash:
        config.stash[_KEY] = Fuzzer(config.getoption("--fuzz-minutes"), config.getoption("--fuzz-seed"))
    return config.stash[_KEY]


def pytest_terminal_summary(terminalreporter, config):
    fuzzer = config.stash.get(_KEY, None)
    if fuzzer is not None:
        terminalreporter.section("fuzzing")
        terminalreporter.write_line(fuzzer.table())

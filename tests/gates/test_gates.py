"""Every gate in its short form; `python -m tests.gates --full` is the long one."""

from importlib import import_module

import pytest

from tests.gates.__main__ import GATES
from tests.gates.gate import CannotRun


@pytest.mark.parametrize("name", GATES)
def test_what_is_promised_holds(name):
    far = []
    try:
        found = import_module(f"tests.gates.{name}").run(False, far.append)
    except CannotRun as error:
        pytest.skip(str(error))
    assert found.failures == []
    assert sum(found.counts.values()) > 0
    assert far[-1] == 1.0

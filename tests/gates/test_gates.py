"""Every gate in its short form; `python -m tests.gates --full` is the long one."""

from importlib import import_module

import pytest

from tests.gates.__main__ import GATES


@pytest.mark.parametrize("name", GATES)
def test_what_is_promised_holds(name):
    far = []
    found = import_module(f"tests.gates.{name}").run(False, far.append)
    assert found.failures == []
    assert sum(found.counts.values()) > 0
    assert far[-1] == 1.0

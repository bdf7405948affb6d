"""How many engines a pool has, by how long its images wait."""

import json
import subprocess
import sys

import pytest

# In a process of its own: Ray's imports warn of much that is its own.
ASK = """
import json, sys
from types import SimpleNamespace
from service.cluster.scaling import ByQueueAge
for replicas, under_way, ages, _ in json.loads(sys.argv[1]):
    context = SimpleNamespace(
        current_num_replicas=replicas, total_num_requests=under_way,
        aggregated_metrics={"queue_age_s": dict(enumerate(ages))} if ages else None,
    )
    print(ByQueueAge(most_s=0.2, at_once=8)(context)[0])
"""
# Replicas, images under way, seconds that the oldest waits at each, and how many there should be.
CASES = [
    (2, 16, [0.3, 0.0], 3),  # one of them cannot keep up
    (2, 16, [0.1, 0.1], 2),
    (2, 3, [0.0, 0.0], 1),  # one would be busy for less than half of its time
    (2, 5, [0.0, 0.0], 2),
    (3, 3, [0.1, 0.0, 0.0], 3),  # something waits
    (1, 0, [0.0], 1),
    (1, 0, [], 1),  # nothing is known yet
]


def test_how_many_engines_there_are():
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(CASES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == [wanted for *_, wanted in CASES]

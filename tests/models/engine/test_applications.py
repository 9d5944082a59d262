"""Whatever an application does to a forward, nothing hangs, is left behind, or becomes another picture."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import pytest
from environments import run

APPLICATIONS = Path(__file__).with_name("applications.py")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked"),
    pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="two threads"),
]


@functools.cache
def outcomes(*scenarios: str, **environment: str) -> dict[str, str]:
    """What became of each scenario, or of all, with two threads for PyTorch, which this process has not."""
    theirs = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = {**theirs, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    done = run(sys.executable, APPLICATIONS, *scenarios, env=environment)
    became: dict[str, str] = json.loads(done.stdout)
    return became


@pytest.mark.parametrize(
    "scenario",
    [
        "with_any_number_of_threads",
        "on_one_processor",
        "leaves_nothing_behind",
        "forwards_at_once",
        "threads_share_a_network_in_half_precision",
        "an_error_in_a_helper",
        "an_interruption_ends_it",
        "an_exception_from_outside",
        "an_exception_from_outside_at_every_thread",
        "a_forward_at_the_end_of_the_program",
        "a_fork_during_a_forward",
        "a_pool_of_processes",
        "under_gevent",
        "under_gevent_patched_late",
        "under_eventlet",
        "under_accelerate",
        "quantised_by_torch",
        "pruned_and_trained",
        "memory_goes_back_to_the_system",
        "a_layer_in_training",
        "the_same_bits_where_they_are_asked_for",
        "beside_a_python_loop",
    ],
)
def test_an_application(scenario: str) -> None:
    assert outcomes()[scenario] == "done"


@pytest.mark.parametrize(("name", "value"), [("OMP_THREAD_LIMIT", "1"), ("OMP_DYNAMIC", "true")])
def test_fewer_threads_than_were_set(name: str, value: str) -> None:
    """Then the private product that was used here before gave garbage without an error."""
    assert outcomes("fewer_threads_than_were_set", **{name: value}) == {"fewer_threads_than_were_set": "done"}

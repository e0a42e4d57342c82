"""Joining several processes: told while waiting, given up in time."""

import time

import pytest

from experiments.scaling import free_address
from jaxmeta.training import join


def test_process_0_is_waited_for_told_and_given_up(capfd):
    address, start = free_address(), time.monotonic()
    with pytest.raises(ValueError, match=f"process 0 was not reached at {address} within 3 s"):
        join(address, 2, 1, wait=3)
    assert 3 <= time.monotonic() - start < 10
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"waiting for process 0 at {address}: 2 s, at most 3 s."


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", ":1", "127.0.0.1:0", "a:99999"])
def test_an_address_of_another_form_is_refused_at_once(address):
    with pytest.raises(ValueError, match="give HOST:PORT"):
        join(address, 2, 1)

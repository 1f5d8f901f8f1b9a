"""Processes killed at each marked point, under traffic: what was answered 200 is there once, and is handled or dead."""

import pytest

from upcall.cli.proof.kills import prove_point
from upcall.failpoints import POINTS

KILLS = 12


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", POINTS)
def test_kills_at(point, tmp_path):
    """A process that dies at this point, a dozen times, loses nothing acknowledged and has no transaction twice."""
    run, ledger = prove_point(tmp_path, point, KILLS, seed=POINTS.index(point))
    assert ledger.faults == ()
    assert ledger.holds
    assert run.kills == {point: KILLS}
    assert ledger.effects > 0
    assert (run.spooled > 0) == (point == "spooled")


def test_the_matrix_is_large_enough():
    """All points together, processes die more than a hundred times."""
    assert KILLS * len(POINTS) >= 100

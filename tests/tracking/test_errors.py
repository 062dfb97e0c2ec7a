"""Errors while measuring: raised or skipped, the same on all ranks."""

import pytest

from spectral_lightning.spectra import Ranks
from spectral_lightning.tracking.errors import Errors, together


class Two(Ranks):
    """Rank 0 of two, the other of which reports what it is told to."""

    size = 2

    def __init__(self, other=None):
        self.other, self.gathered = other, 0

    def gather(self, value):
        self.gathered += 1
        return [value, self.other]


def fail(text="here"):
    raise ZeroDivisionError(text)


def test_an_error_is_raised_on_the_rank_where_it_is_and_reported_on_the_others():
    with together(Two()):
        pass
    with pytest.raises(ZeroDivisionError, match="here"), together(Two("rank 1: LookupError: there")):
        fail()
    with pytest.raises(RuntimeError, match="rank 1: LookupError: there"), together(Two("rank 1: LookupError: there")):
        pass


@pytest.mark.parametrize("other", [None, "rank 1: LookupError: there"])
def test_an_attempt_is_agreed_on(other):
    raising, skipping = Errors("spectral"), Errors("spectral", "skip")
    with skipping.attempt(Two(), 3) as attempt:
        pass
    assert (attempt.failed, skipping.failures) == (False, [])
    with (
        pytest.warns(UserWarning, match=r"'spectral', step 5: .*Training goes on"),
        skipping.attempt(Two(other), 5) as attempt,
    ):
        fail()
    assert attempt.failed
    with pytest.raises(ZeroDivisionError), raising.attempt(Two(other), 5):
        fail()
    assert raising.failures == skipping.failures == [(5, "ZeroDivisionError: here")]
    again = Errors("spectral")
    again.load_state(raising.state())
    assert again.failures == raising.failures


@pytest.mark.parametrize("ended", [True, False])
def test_every_part_is_run_whatever_happens_to_the_others(ended):
    done, errors, ranks = [], Errors("spectral"), Two()
    parts = {"one": fail, "two": lambda: done.append(2), "three": lambda: fail("later"), "four": lambda: done.append(4)}
    if ended:  # after an exception of the training, no rank waits and none is raised
        with pytest.warns(UserWarning, match="had already ended"):
            errors.each(None, 7, parts)
    else:
        with pytest.raises(ZeroDivisionError, match="here"):
            errors.each(ranks, 7, parts)
    assert done == [2, 4]
    assert ranks.gathered == (0 if ended else 1)
    assert [text for _, text in errors.failures] == [
        "one failed: ZeroDivisionError: here",
        "three failed: ZeroDivisionError: later",
    ]

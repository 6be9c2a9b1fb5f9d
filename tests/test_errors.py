"""Whatever says that no memory is left becomes one line that says what to lower; other errors stay what they are."""

from typing import Any

import numpy
import pytest
import torch

from frozen_glyph.errors import NotEnoughMemory, enough_memory

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 14.57 GiB of which 3.25 GiB is "
    "free.\nProcess 1 has 2 GiB in use. See documentation for Memory Management (https://pytorch.org)"
)
ERRORS = [
    (lambda: torch.OutOfMemoryError(CUDA), "20.00 GiB more were asked for"),
    (lambda: torch.empty(1 << 60), r"\d+ bytes more were asked for"),
    (lambda: numpy.empty(1 << 58), "Unable to allocate"),
    (MemoryError, "MemoryError"),
]


@pytest.mark.parametrize(("make", "said"), ERRORS)
def test_no_memory_left_is_one_line_that_says_what_to_lower(make: Any, said: str) -> None:
    with (
        pytest.raises(NotEnoughMemory, match=f"^training: out of memory \\(.*{said}.*\\); lower x$") as caught,
        enough_memory("training", "lower x"),
    ):
        raise make()
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("training", "lower x"):
        raise RuntimeError("shapes do not fit")

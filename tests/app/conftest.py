"""Speakers for the page."""

import pytest

from frozen_glyph.talk.speakers import Speaker


@pytest.fixture
def speakers(merged_folder, experts):
    return [Speaker(str(merged_folder), "cpu"), Speaker(str(experts[0]), "cpu")]

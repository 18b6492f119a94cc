"""What tests of refusals share."""

import pytest

from da.errors import UserError


def refused(call, *words):
    """The one line that a call is refused with; all of the words are in it."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text

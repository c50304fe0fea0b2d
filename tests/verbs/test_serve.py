import socket

import pytest

from hiwl.core.errors import HiwlError
from hiwl.verbs.serve import check_port


def test_a_port_that_is_taken_or_is_none_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 99_999):
            with pytest.raises(HiwlError, match=f"127.0.0.1:{port}: .*; name another --port"):
                check_port("127.0.0.1", port)

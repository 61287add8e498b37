"""The command `vitpipe ui`."""

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.helpers.stores import make_store


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_printed_address_is_served(tmp_path, host):
    make_store(tmp_path / "sample" / "metadata.db", runs=1)
    command = [sys.executable, "-m", "vitpipe", "ui", "--runs", tmp_path, "--host", host, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            url = re.match(r"http://\S+", line)[0].replace("0.0.0.0", "127.0.0.1")
            assert ("token=" in url) is (host == "0.0.0.0")
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            assert "sample-run-000" in opener.open(url).read().decode()
            if "token=" in url:
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(url.partition("?")[0])
        finally:
            process.terminate()


def test_a_port_in_use_is_an_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "vitpipe", "ui", "--runs", tmp_path, "--port", port]
        answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2 and "--port" in answer.stderr

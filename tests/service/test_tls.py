"""The service over https, without a proxy."""

import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
import trustme

KIZU = Path(sys.executable).with_name("kizu")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def files(authority, tmp_path):
    """A certificate for 127.0.0.1 and its key."""
    made = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(key)
    return certificate, key


def start(tmp_path, store, **files):
    variables = {f"KIZU_TLS_{name.upper()}": str(path) for name, path in files.items()}
    return subprocess.Popen(
        [KIZU, "serve", "--store", store, "--data", tmp_path / "data", "--port", "0"],
        env=os.environ | variables, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_it_is_served_by_https_alone(authority, files, store, tmp_path):
    certificate, key = files
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    process = start(tmp_path, store, certificate=certificate, key=key)
    try:
        url = next(json.loads(line)["url"] for line in process.stderr if '"listening"' in line)
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=url, verify=trusted, timeout=30) as client:
            assert client.get("/health/ready").json()["status"] == "ready"
        with pytest.raises(httpx.HTTPError), httpx.Client(timeout=30) as client:
            client.get(url.replace("https", "http"))
        with pytest.raises(httpx.ConnectError), httpx.Client(timeout=30) as client:
            client.get(url)  # by nobody whom it trusts
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stderr.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("certificate",), "no certificate and its key"),
        (("key",), "a key and no certificate"),
        (("key", "key"), "no certificate and its key"),
    ],
)
def test_what_is_no_certificate_stops_the_start(files, store, tmp_path, given, says):
    certificate, key = files
    which = {"certificate": certificate, "key": key}
    chosen = {"certificate": key, "key": key} if given == ("key", "key") else {
        name: which[name] for name in given
    }  # fmt: skip
    process = start(tmp_path, store, **chosen)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert says in said

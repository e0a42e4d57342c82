"""Downloads from a loopback server: whole and right, or not there at all."""

import functools
import hashlib
import http.server
import threading

import pytest

from jaxmeta.data.download import download

CONTENT = b"drawings " * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a folder; yields its URL, the folder, and the list of paths asked for."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code=None, size=None):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}", folder, asked
        service.shutdown()
        thread.join()


def test_a_file_is_fetched_once(server, tmp_path):
    url, folder, asked = server
    (folder / "images.zip").write_bytes(CONTENT)
    path = tmp_path / "images.zip"
    assert download(f"{url}/images.zip", path, SHA256).read_bytes() == CONTENT
    assert download(f"{url}/images.zip", path, SHA256).read_bytes() == CONTENT
    assert asked == ["/images.zip"]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    url, folder, _ = server
    (folder / "images.zip").write_bytes(CONTENT)
    path = tmp_path / "images.zip"
    path.write_bytes(CONTENT[:1000])
    assert download(f"{url}/images.zip", path, SHA256).read_bytes() == CONTENT


def test_another_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    url, folder, _ = server
    (folder / "images.zip").write_bytes(CONTENT[:-1])
    other = hashlib.sha256(CONTENT[:-1]).hexdigest()
    path = tmp_path / "target" / "images.zip"
    path.parent.mkdir()
    with pytest.raises(ValueError, match=f"images.zip .* is {other}, not {SHA256}; run again"):
        download(f"{url}/images.zip", path, SHA256)
    assert [*path.parent.iterdir()] == []


def test_what_is_missing_is_told_in_one_line(server, tmp_path):
    url, _, _ = server
    path = tmp_path / "images.zip"
    with pytest.raises(OSError, match=r"can't download .*/images.zip \(.*404.*\)") as caught:
        download(f"{url}/images.zip", path, SHA256)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("url", ["file:///nowhere/a.zip", "nonsense", "http://127.0.0.1:9/a.zip"])
def test_a_url_that_cannot_be_reached_is_an_os_error(url, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(OSError, match="can't download"):
        download(url, tmp_path / "a.zip", SHA256)
    assert [*tmp_path.iterdir()] == []

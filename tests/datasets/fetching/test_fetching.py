import hashlib
import http.server
import io
import logging
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from refusing import refused

from datasets.fetching import downloads
from datasets.fetching.downloads import Download, fetch_file, fetch_files

ROOT = Path(__file__).parents[3]


def packed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("a.jpg", np.random.default_rng(0).bytes(600_000))
    return buffer.getvalue()


CONTENT = packed()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file under every path; how badly is set by ``plan``, one word per request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.plan, self.asked = CONTENT, '"1"', [], []
        self.half, self.go_on = threading.Event(), threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}/set.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        plan = server.plan.pop(0) if server.plan else "good"
        if plan.isdecimal():
            self.send_response(int(plan))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if plan == "redirect":
            self.send_response(302)
            self.send_header("Location", server.elsewhere)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if plan in ("html", "sly html"):
            page = b"<!DOCTYPE html><html>Quota exceeded</html>"
            self.send_response(200)
            kind = "text/html; charset=utf-8" if plan == "html" else "application/zip"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
            return
        if plan == "endless":  # no length, as of a program that makes the file while it sends
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(0, len(CONTENT), 100_000):
                block = CONTENT[i : i + 100_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
            self.wfile.write(b"0\r\n\r\n")
            return
        first = 0
        wanted = self.headers.get("Range")
        if wanted and plan != "no ranges" and self.headers.get("If-Range") == server.tag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        self.send_header("ETag", '"another"' if plan == "careless" else server.tag)
        if plan == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if first:
            start = 0 if plan == "wrong range" else first
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(server.content) - first))
        self.end_headers()
        body = server.content[first:]
        if plan == "slow":
            half = len(body) // 2
            self.wfile.write(body[:half])
            server.half.set()
            server.go_on.wait(30)
            self.wfile.write(body[half:])
            return
        self.wfile.write(body[: len(body) // 2] if plan == "cut" else body)
        if plan == "cut":
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def one(server, **known):
    return Download(server.address, "set.zip", **known)


def left(root):
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_downloaded_verified_and_unpacked_once(server, tmp_path, caplog):
    caplog.set_level(logging.INFO, "datasets")
    known = {
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "md5": hashlib.md5(CONTENT).hexdigest(),
    }
    fetch_files("Toy", [one(server, **known)], tmp_path / "new", "by hand")
    assert left(tmp_path / "new") == ["set.unpacked", "set.zip"]
    assert (tmp_path / "new" / "set.zip").read_bytes() == CONTENT
    fetch_files("Toy", [one(server, **known)], tmp_path / "new", "by hand")
    assert len(server.asked) == 1
    assert "there already" in caplog.text


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.plan = ["cut", "cut", "good"]
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked[:2] == [None, f"bytes={half}-"]
    assert left(tmp_path) == ["set.zip"]


def test_it_goes_on_in_a_later_process(server, tmp_path):
    server.plan = ["cut"] + ["500"] * 4
    refused(lambda: fetch_file(one(server), tmp_path), "the server answers 500", "5 times")
    assert left(tmp_path) == ["set.zip.part", "set.zip.part.json"]
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize("how", ["changed", "no ranges"])
def test_a_file_that_has_changed_or_a_server_without_ranges_begins_anew(server, tmp_path, how):
    server.plan = ["cut", how]
    if how == "changed":
        server.plan[1] = "503"
        original = server.content

        def later():
            server.content, server.tag = original[::-1], '"2"'

        threading.Timer(0.005, later).start()
        downloads.WAIT = 0.05
    found = fetch_file(Download(server.address, "x.bin", unpack=False), tmp_path).read_bytes()
    assert found == server.content


@pytest.mark.parametrize("how", ["wrong range", "careless"])
def test_another_part_than_was_asked_for_is_not_taken(server, tmp_path, how):
    server.plan = ["cut", how, "good"]
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.plan = ["503", "429", "good"]
    fetch_file(one(server), tmp_path)
    assert len(server.asked) == 3


@pytest.mark.parametrize("unpack", [True, False])
@pytest.mark.parametrize("kind", ["html", "sly html"])
def test_a_web_page_is_not_taken_for_the_file(server, tmp_path, kind, unpack):
    server.plan = [kind]
    found = one(server, unpack=unpack, size=len(CONTENT))
    refused(lambda: fetch_file(found, tmp_path), "gave a web page", "in a browser")
    assert left(tmp_path) == []


def test_a_web_page_does_not_replace_what_is_there(server, tmp_path):
    server.plan = ["cut", "html"]
    refused(lambda: fetch_file(one(server), tmp_path), "gave a web page")
    assert (tmp_path / "set.zip.part").stat().st_size == len(CONTENT) // 2
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={len(CONTENT) // 2}-"


def test_a_whole_part_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    (tmp_path / "set.zip.part.json").write_text('{"mark": "\\"1\\""}')
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert left(tmp_path) == ["set.zip"]
    (tmp_path / "set.zip").unlink()
    (tmp_path / "set.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "set.zip.part.json").write_text('{"mark": "\\"1\\""}')
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_a_server_may_be_silent_on_the_length_but_must_not_pack(server, tmp_path):
    server.plan = ["endless", "gzip"]
    assert fetch_file(one(server), tmp_path / "a").read_bytes() == CONTENT
    refused(lambda: fetch_file(one(server), tmp_path / "b"), "packs the file (gzip)")


def test_a_mirror_is_asked_where_the_first_fails(server, tmp_path):
    server.plan = ["404", "cut", "good", "404", "403"]
    found = one(server, mirrors=(f"{server.address}?mirror",))
    assert fetch_file(found, tmp_path / "a").read_bytes() == CONTENT
    refused(lambda: fetch_file(found, tmp_path / "b"), "answers 404", "?mirror", "answers 403")


@pytest.mark.parametrize(
    "known", [{"size": 3}, {"sha256": "0" * 64}, {"md5": "0" * 32}], ids=["size", "sha256", "md5"]
)
def test_what_does_not_match_is_not_kept(server, tmp_path, known):
    found = one(server, **known)
    refused(lambda: fetch_file(found, tmp_path), server.address, "expected", "get")
    assert left(tmp_path) == []
    (tmp_path / "set.zip").write_bytes(CONTENT)
    refused(lambda: fetch_file(found, tmp_path), "set.zip' has", "remove it and fetch again")


def test_what_a_server_refuses_is_said(server, tmp_path):
    server.plan = ["404"]
    refused(lambda: fetch_file(one(server), tmp_path), "the server answers 404", server.address)
    for server.elsewhere in ("file:///etc/passwd", "ftp://127.0.0.1:9/x"):
        server.plan = ["redirect"]
        refused(lambda: fetch_file(one(server), tmp_path))
    refused(lambda: fetch_file(Download("ftp://x/y", "y"), tmp_path), "only http and https")
    refused(lambda: fetch_file(Download(server.address, "../y"), tmp_path), "outside")
    nowhere = Download("http://127.0.0.1:9/x.zip", "x.zip")
    refused(lambda: fetch_file(nowhere, tmp_path), "no connection")
    assert left(tmp_path) == []


def test_one_that_fails_does_not_lose_the_others(server, tmp_path, caplog):
    server.plan = ["404", "good"]
    files = [Download(server.address, "a.zip"), Download(server.address, "b.zip")]
    text = refused(
        lambda: fetch_files("Toy", files, tmp_path, "open the page"), "1 of 2 files", "a.zip"
    )
    assert "By hand: open the page" in text
    assert left(tmp_path) == ["b.unpacked", "b.zip"]
    assert "failed: http" in caplog.text


def test_a_server_that_no_connection_is_made_to_is_tried_for_one_file_alone(
    server, tmp_path, caplog
):
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        files = [Download(f"{nowhere}/{i}.bin", f"{i}.bin", unpack=False) for i in range(3)]
        mirrored = files[2]._replace(file="m.bin", mirrors=(server.address,))
        for _ in range(2):  # each call tries anew
            refused(
                lambda: fetch_files("Toy", [*files, mirrored], tmp_path, "by hand"), "3 of 4 files"
            )
            said = caplog.text
            caplog.clear()
            assert said.count("; trying again") == 4
            assert "0.bin: no connection (Connection refused) (5 times)" in said
            for i in (1, 2):
                assert f"/{i}.bin: no connection (Connection refused), not tried again" in said
    assert (tmp_path / "m.bin").read_bytes() == CONTENT


def test_a_name_that_nobody_knows_is_looked_up_once(tmp_path, caplog, monkeypatch):
    looked_up = []

    def counting(host, *args, **options):
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", counting)
    files = [Download(f"https://no.invalid/{i}.zip", f"{i}.zip") for i in range(3)]
    refused(lambda: fetch_files("Toy", files, tmp_path, "by hand"), "3 of 3 files")
    assert caplog.text.count("no such host, or no connection to the internet") == 3
    assert looked_up == ["no.invalid"]


def test_a_server_that_answers_is_asked_for_every_file(server, tmp_path):
    server.plan = ["503"] * 5 + ["good"]
    files = [Download(server.address, f"{i}.zip") for i in range(2)]
    refused(lambda: fetch_files("Toy", files, tmp_path, "by hand"), "1 of 2 files failed: 0.zip")
    assert len(server.asked) == 6


def test_a_redirect_to_a_server_that_is_silent_is_not_held_against_the_first(server, tmp_path):
    server.plan, server.elsewhere = ["redirect"] * 5, "http://127.0.0.1:9/x.zip"
    files = [Download(server.address, f"{i}.zip") for i in range(2)]
    refused(lambda: fetch_files("Toy", files, tmp_path, "by hand"), "1 of 2 files failed: 0.zip")
    assert len(server.asked) == 6


def test_what_no_program_can_get_is_explained(tmp_path):
    refused(lambda: fetch_files("Toy", (), tmp_path / "x", "open the page"), "Toy", "open the page")
    assert not (tmp_path / "x").exists()


def test_a_root_that_is_a_file_is_refused(server, tmp_path):
    (tmp_path / "x").write_text("")
    refused(lambda: fetch_files("Toy", [one(server)], tmp_path / "x", "open the page"), "is a file")


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="nobody can make files in /sys, even root")
def test_a_folder_that_cannot_be_written_to_is_said(server):
    refused(lambda: fetch_file(one(server), Path("/sys")), "'/sys' can't be written to", "root")
    assert server.asked == []


def test_a_disk_that_is_too_small_is_said_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    refused(lambda: fetch_file(one(server), tmp_path), "GB are free", "another root")
    assert left(tmp_path) == []


PROGRAM = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from da.ops.log_output import show_log
from datasets.fetching.downloads import Download, fetch_file
show_log("datasets")
if len(sys.argv) > 3:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    print("done", fetch_file(Download(sys.argv[1], "set.zip"), Path(sys.argv[2])))
except Exception as error:
    print(type(error).__name__, error)
"""


def start(server, root, *limit, stderr=subprocess.PIPE):
    words = [PROGRAM.format(root=str(ROOT)), server.address, str(root), *map(str, limit)]
    return subprocess.Popen(
        [sys.executable, "-c", *words], stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def test_a_disk_that_gets_full_leaves_nothing_that_looks_whole(server, tmp_path):
    out, err = start(server, tmp_path, 100_000).communicate()
    assert "UserError" in out, err
    assert "can't be written: File too large; what is there is kept" in out
    assert "set.zip" not in left(tmp_path)
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_one_of_two_processes_downloads_and_the_other_waits(server, tmp_path):
    server.plan = ["slow"]
    first = start(server, tmp_path)
    assert server.half.wait(60)
    second = start(server, tmp_path)
    assert "waiting for another process: it downloads set.zip" in second.stderr.readline()
    server.go_on.set()
    found = [process.communicate()[0] for process in (first, second)]
    assert all("done" in out for out in found), found
    assert "there already" in found[1]
    assert server.asked == [None]
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_process_that_is_killed_is_gone_on_with(server, tmp_path):
    server.plan = ["slow"]
    process = start(server, tmp_path)
    assert server.half.wait(60)
    part = tmp_path / "set.zip.part"
    while not part.exists() or not part.stat().st_size:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.go_on.set()
    assert left(tmp_path) == ["set.zip.part", "set.zip.part.json"]
    assert fetch_file(one(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1].startswith("bytes=")


def test_a_terminal_shows_a_bar_with_an_estimate(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    server.plan = ["slow"]
    ours, theirs = pty.openpty()
    process = start(server, tmp_path, stderr=theirs)
    os.close(theirs)
    assert server.half.wait(60)
    said = b""
    while b"262.1/600.1 kB" not in said:
        said += os.read(ours, 1000)
    server.go_on.set()
    assert b"set.zip" in said
    assert "done" in process.communicate()[0]
    os.close(ours)

"""Explanation of images over HTTP, by the process that holds the model, and in a browser."""

import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import keras
import pytest

from components.model.serving_folder import ModelId, ModelRecord, push
from tests.helpers.spans import encoded, picture
from trainer import serving
from trainer.vit import ViT
from vitpipe.ui import explainer
from vitpipe.ui.app import create_app
from vitpipe.ui.explainer_client import ExplainerClient, RefusedError
from vitpipe.ui.safety import IMAGE, MAX_BODY

CLASSES = ["cat", "dog", "<b>fox"]
FROM_HERE = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin", "Content-Type": IMAGE}


def pushed(folder, model, version=1):
    record = ModelRecord(
        version=version,
        pushed_at=datetime(2026, 1, version, tzinfo=UTC),
        run_id="run-1",
        span=1,
        data_digest="d",
        model=ModelId(uri="/1", created_ms=1),
        code_version="c",
        settings_digest="s",
        metrics={"accuracy": 0.9},
        signatures=["explain"],
        classes=CLASSES,
    )
    push(model, folder, record)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = ViT(image_size=8, patch_size=4, classes=3, depth=2, width=8, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    folder = tmp_path_factory.mktemp("model")
    serving.export(model, CLASSES, str(folder))
    return folder


@pytest.fixture(scope="module")
def models(model, tmp_path_factory):
    """Runs folder of two pipelines with a pushed model each: an intact one, and an older one that was changed."""
    runs = tmp_path_factory.mktemp("models")
    pushed(runs / "good" / "serving", model, version=2)
    pushed(runs / "changed" / "serving", model)
    with (runs / "changed" / "serving" / "1" / "saved_model.pb").open("ab") as file:
        file.write(b"more")
    return runs


@pytest.fixture(scope="module")
def app(models):
    return create_app(models)


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture(scope="module")
def image():
    return encoded(picture(100, 20))


def ask(client, data, headers=None, model=""):
    return client.post(f"/-/explain?model={model}", data=data, headers=FROM_HERE | (headers or {}))


def note(answer):
    return re.search('<p class="note">(.*?)</p>', answer.text)[1]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_send_an_image(client, image, headers):
    answer = ask(client, image, headers)
    assert answer.status_code == 403 and "Only a page of this server" in note(answer)


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""])
def test_content_types_of_forms_are_rejected(client, image, kind):
    assert ask(client, image, {"Content-Type": kind}).status_code == 415


def test_no_permission_to_send_is_given_to_other_sites(client):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/-/explain", headers=asked)
    assert answer.status_code == 405 and "Access-Control-Allow-Origin" not in answer.headers


def test_only_one_address_accepts_images(client, image):
    for path in ("/", "/-/explain/x", "/-/ui.css", "/good/", "/none"):
        assert client.post(path, data=image, headers=FROM_HERE).status_code == 405
    for method in ("put", "delete", "patch"):
        assert getattr(client, method)("/-/explain", headers=FROM_HERE).status_code == 405


def test_an_image_from_another_machine_needs_the_token(models, image):
    client = create_app(models, "0.0.0.0", "right").test_client()
    assert ask(client, image).status_code == 403
    assert client.post("/-/explain?token=right", data=image, headers=FROM_HERE).status_code == 403
    client.get("/?token=right")
    assert ask(client, b"no image").status_code == 422


def test_a_large_image_is_rejected(client):
    answer = ask(client, bytes(MAX_BODY + 1))
    assert answer.status_code == 413 and "16 MiB" in note(answer)


@pytest.mark.parametrize("length", [f"Content-Length: {MAX_BODY + 1}", "Transfer-Encoding: chunked"])
def test_the_server_does_not_read_a_large_body(models, length):
    command = [sys.executable, "-m", "vitpipe", "ui", "--runs", str(models), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            port = int(re.search(r":(\d+)/", server.stderr.readline())[1])
            with socket.create_connection(("127.0.0.1", port), 20) as asked:
                asked.sendall(f"POST /-/explain HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
                if "chunked" in length:
                    asked.sendall(f"{MAX_BODY + 1:x}\r\n".encode() + bytes(MAX_BODY + 1))
                assert asked.recv(1000).startswith(b"HTTP/1.1 413 ")
        finally:
            server.terminate()


def test_an_image_is_explained_with_the_pictures_of_vitpipe_explain(client, models, image):
    answer = ask(client, image)
    assert answer.status_code == 201
    page = client.get(answer.location)
    assert page.headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none';")
    assert page.headers["Cache-Control"] == "no-store"
    assert f"{models}/good/serving/2" in page.text and "2 x 2 patches of 4 pixels" in page.text
    assert '"columns": ["head 1", "head 2", "mean", "rollout"]' in page.text and "<b>fox" not in page.text
    assert client.get("/-/explain/other").status_code == 404


def test_the_newest_answers_are_kept(client, image):
    first, *others = (ask(client, image).location for _ in range(9))
    assert client.get(first).status_code == 404
    assert {client.get(other).status_code for other in others} == {200}


def test_an_unusable_image_or_model_is_refused_with_a_reason(client, image, models):
    for data, words in ((b"<html>", "not a PNG or JPEG"), (image[:-20], "cut or damaged"), (b"", "not a PNG or JPEG")):
        answer = ask(client, data)
        assert answer.status_code == 422 and words in note(answer) and "Choose a PNG or JPEG" in note(answer)
    changed = ask(client, image, model="changed/1")
    assert changed.status_code == 422 and "not the model that was pushed" in note(changed)
    nobodys = models / "nobodys" / "serving" / "1"
    shutil.copytree(models / "good" / "serving" / "2", nobodys, ignore=shutil.ignore_patterns("model.json"))
    assert "does not say where the model came from" in note(ask(client, image, model="nobodys/1"))
    shutil.rmtree(nobodys)
    for name in ("good/7", "../models/good/serving/2", "<i>"):
        assert "There is no pushed model" in note(ask(client, image, model=name))
    assert ask(client, image, model="good/2").status_code == 201


def test_without_a_model_the_page_names_the_command_that_pushes_one(tmp_path, image):
    client = create_app(tmp_path).test_client()
    assert "vitpipe run" in client.get("/-/explain").text
    assert "vitpipe run" in note(ask(client, image))


def test_the_next_image_is_explained_by_a_newer_version(model, tmp_path, image):
    client = create_app(tmp_path).test_client()
    for version in (1, 2):
        pushed(tmp_path / "x" / "serving", model, version)
        assert f"serving/{version}:" in client.get(ask(client, image).location).text


def process_of(server):
    """Return the id of the child process of `server` that holds a model."""
    children = Path(f"/proc/{server}/task").glob("*/children")
    [found] = [
        child
        for file in children
        for child in map(int, file.read_text().split())
        if b"vitpipe.ui.explainer" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found


SERVER = """
import sys
from pathlib import Path
from vitpipe.ui.app import create_app
client = create_app(Path(sys.argv[1])).test_client()
headers = {"Origin": "http://localhost", "Content-Type": "application/octet-stream"}
assert client.get("/-/explain").status_code == 200
for line in sys.stdin:
    answer = client.post("/-/explain", data=bytes.fromhex(line), headers=headers)
    heavy = {"tensorflow", "keras", "tfx"} & sys.modules.keys()
    words = [one for one in ("exit code -9", "not a PNG") if one in answer.text]
    print(answer.status_code, *heavy, *words, flush=True)
"""


def test_the_model_has_a_process_of_its_own(models, image):
    """If it is killed, the page reports it. It ends if the server is killed. The server itself loads no TensorFlow."""
    command = [sys.executable, "-c", SERVER, str(models)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:

        def ask(data):
            server.stdin.write(data.hex() + "\n")

        def answer():
            return server.stdout.readline().strip()

        try:
            ask(image)
            assert answer() == "201"
            held = process_of(server.pid)
            os.kill(held, signal.SIGSTOP)  # so that the request is pending when it is killed
            ask(image)
            time.sleep(0.5)
            os.kill(held, signal.SIGKILL)
            assert answer() == "422 exit code -9"
            ask(b"x")
            assert answer() == "422 not a PNG"
            held = process_of(server.pid)
        finally:
            server.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{held}").exists() and "\nState:\tZ" not in Path(f"/proc/{held}/status").read_text():
        assert time.monotonic() < end, "the process outlives its server"
        time.sleep(0.1)


def test_an_idle_process_ends(monkeypatch):
    monkeypatch.setattr(explainer, "_IDLE", 0.01)
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        explainer.serve(theirs)


def test_an_image_that_arrives_while_the_process_ends_is_explained(models):
    asked = ExplainerClient()
    asked._connection, theirs = multiprocessing.Pipe()
    with theirs:
        # It ends like a process that was idle.
        asked._process = subprocess.Popen(["sleep", "0.3"], pass_fds=[theirs.fileno()])
    with pytest.raises(RefusedError, match="not a PNG or JPEG"):
        asked.ask(models / "good" / "serving" / "2", b"x")


def test_an_explanation_that_takes_too_long_is_stopped(models, image, monkeypatch):
    monkeypatch.setattr("vitpipe.ui.explainer_client._LIMIT", 0.05)
    client = create_app(models).test_client()
    assert "was stopped. Try again" in note(ask(client, image))


def test_a_second_image_waits_or_is_rejected_as_busy(app, client, image, monkeypatch):
    both = [threading.Thread(target=lambda: codes.append(ask(app.test_client(), image).status_code)) for _ in range(2)]
    codes = []
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert codes == [201, 201]
    monkeypatch.setattr("vitpipe.ui.explainer_client._WAIT", 0)
    monkeypatch.setattr(
        "vitpipe.ui.explainer_client.ExplainerClient._reply",
        lambda *_: codes.append(ask(client, image)) or {"refused": "x"},
    )
    ask(client, image)
    assert codes[-1].status_code == 503 and "Try again" in note(codes[-1])


@pytest.fixture(scope="module")
def address(serve, app):
    return serve(app)


@pytest.fixture
def page(page):
    page.goto("/")
    page.get_by_role("link", name="Explain an image").click()
    return page


def drop(page, name, data):
    """Drop a file on the page, with the events that a browser sends."""
    page.evaluate(
        """([name, bytes]) => {
          const carried = new DataTransfer();
          carried.items.add(new File([new Uint8Array(bytes)], name));
          const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: carried });
          document.querySelector("main").dispatchEvent(event);
        }""",
        [name, list(data)],
    )


@pytest.mark.browser
def test_a_dropped_image_is_explained_and_its_maps_can_be_browsed(page, image):
    drop(page, "<i>a.png", image)
    frame = page.frame_locator("#answer")
    frame.locator("#answer .first").wait_for()
    assert "<i>a.png" in page.locator("#status").inner_text()
    assert frame.locator("#answer .bar").count() == 3
    assert frame.locator("#answer span.first").inner_text() in CLASSES
    assert frame.locator("#choices img.map").count() == 8
    assert frame.locator("#map").evaluate("image => image.naturalWidth") == 8
    assert frame.locator("#caption").inner_text().startswith("block 2, rollout")
    page.wait_for_function("document.activeElement.id == 'answer'")
    page.keyboard.press("ArrowRight")
    frame.locator("#caption", has_text="block 2, head 1").wait_for()
    frame.get_by_role("button", name="block 1, head 2").click()
    frame.locator("#caption", has_text="block 1, head 2").wait_for()
    [inner] = [frame for frame in page.frames if frame.parent_frame]
    assert inner.evaluate("window.origin") == "null"


@pytest.mark.browser
def test_a_chosen_file_that_is_not_an_image_is_refused(page):
    file = {"name": "a.png", "mimeType": "image/png", "buffer": b"<html>"}
    page.locator("input[type=file]").set_input_files(file)
    page.locator("#status.note", has_text="not a PNG or JPEG image").wait_for()
    assert not page.locator("#answer").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_answer_fits_the_screen_and_another_model_can_be_chosen(page, image, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": image})
    page.frame_locator("#answer").locator("#answer .first").wait_for()
    [inner] = [frame for frame in page.frames if frame.parent_frame]
    for frame in (page, inner):
        assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("Model").select_option("changed/1")
    page.locator("#status.note", has_text="not the model that was pushed").wait_for()


def elsewhere(_, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"elsewhere"]


@pytest.mark.browser
def test_a_page_of_another_server_cannot_post(chromium, serve, address):
    """The other server is on this machine, so a browser would send it the same cookies."""
    post = """([to, more]) => fetch(to, { method: "POST", body: "x", ...more }).then(() => "sent", () => "refused")"""
    to, statuses = f"{address}/-/explain", []
    page = chromium.new_page()
    page.goto(serve(elsewhere))
    page.on("response", lambda response: statuses.append((response.request.method, response.status)))
    assert page.evaluate(post, [to, {"headers": {"Content-Type": IMAGE}}]) == "refused"
    assert page.evaluate(post, [to, {"mode": "no-cors"}]) == "sent"
    page.close()
    assert [status for method, status in statuses if method == "POST"] == [403]

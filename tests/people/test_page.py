"""The page, as who opens it in a browser uses it: a real upload, in headless Chromium."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from io import BytesIO

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.strangers import scene
from tests.test_command_line import HEAVY, imported_by

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no Chromium here; type apt-get install chromium chromium-driver, then make test-people",
)
pytest.importorskip("gradio", reason="no Gradio here: make test-all runs this in .venv-page")
LONGEST = 180  # seconds for the browser to show something


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """The page of the trained run: its process and its address. It is closed by SIGINT, as by Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "page",
        "--run",
        trained.name,
        "--output-dir",
        str(trained.parent.parent),
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    folder = tmp_path_factory.mktemp("page")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
    )
    try:
        said = ""
        while "Open http" not in said and (line := process.stdout.readline()):
            said += line
        assert f"Open http://127.0.0.1:{port}/" in said, said
    except BaseException:
        process.kill()
        raise
    yield process, f"http://127.0.0.1:{port}/"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 130 and "deleted" in said, said
    assert not list(folder.rglob("*.png"))  # what was dropped is gone


@pytest.fixture
def browser(served, tmp_path):
    """Headless Chromium on the page."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/it",
    ):
        options.add_argument(flag)
    options.add_argument("--window-size=1200,1400")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(served[1])
        yield driver
    finally:
        driver.quit()


def drop(browser, path):
    """Hand a file to the page's upload."""
    waiting(browser, lambda: browser.find_elements("css selector", "#photograph input[type=file]"))[0].send_keys(
        str(path)
    )


def waiting(browser, for_what):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, LONGEST).until(lambda _: for_what())


def picture(browser, name):
    """The picture that the page shows under that name, as it is served."""
    (shown,) = waiting(browser, lambda: browser.find_elements("css selector", f"#{name} img[src*='/file=']"))
    with urllib.request.urlopen(shown.get_attribute("src")) as answer:
        return Image.open(BytesIO(answer.read()))


@needs_browser
def test_a_dropped_image_comes_back_as_the_mask_that_predict_writes(browser, trained, command, tmp_path):
    photo = scene(150, 100, 3)[0]
    Image.fromarray(photo).save(tmp_path / "car.png")
    drop(browser, tmp_path / "car.png")
    mask, overlay, cutout = (picture(browser, name) for name in ("mask", "overlay", "cutout"))
    line = waiting(browser, lambda: browser.find_element("css selector", "#seconds textarea").get_attribute("value"))
    places = ("--output", tmp_path / "masks", "--output-dir", trained.parent.parent, "--device", "cpu")
    assert command("predict", tmp_path / "car.png", "--run", trained.name, "--overlay", *places)[0] == 0
    expected = cv2.imread(str(tmp_path / "masks" / "car.png"), cv2.IMREAD_UNCHANGED)
    assert 0 < (expected > 0).mean() < 1 and mask.mode == "L"
    assert np.array_equal(np.asarray(mask), expected)
    assert cutout.mode == "RGBA" and np.array_equal(np.asarray(cutout), np.dstack([photo, expected]))
    tinted = np.asarray(overlay.convert("RGB"))
    assert tinted.shape == photo.shape and (tinted != photo).any(2)[expected > 0].all()
    assert re.fullmatch(rf"\d+\.\d\d s for 150x100 pixels; {(expected > 0).mean():.1%} of them are foreground", line)


@needs_browser
def test_nothing_is_asked_of_any_other_machine(browser, tmp_path):
    Image.fromarray(scene(96, 64, 3)[0]).save(tmp_path / "car.jpg")
    drop(browser, tmp_path / "car.jpg")
    picture(browser, "mask")
    log = "".join(
        entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]
    )
    asked = set(re.findall(r'"url":"(?:https?|wss?)://([^/:"]+)', log))
    assert asked == {"127.0.0.1"}


@needs_browser
def test_a_damaged_image_is_refused_in_one_sentence(browser, tmp_path):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(scene(400, 300, 3)[0]).save(whole)
    (tmp_path / "half.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    drop(browser, tmp_path / "half.jpg")
    text = waiting(browser, lambda: browser.find_element("css selector", ".toast-body, [data-testid=toast-body]").text)
    assert "half.jpg is truncated or damaged" in text and "/" not in text


def test_it_is_served_on_loopback_alone(served):
    process, _ = served
    listening = [
        c.laddr.ip for c in psutil.Process(process.pid).net_connections(kind="inet") if c.status == psutil.CONN_LISTEN
    ]
    assert listening and set(listening) == {"127.0.0.1"}


def test_a_port_that_is_taken_is_refused_in_one_sentence(served, command, trained):
    port = served[1].rstrip("/").rpartition(":")[2]
    code, _, complaint = command("page", "--run", trained.name, "--output-dir", trained.parent.parent, "--port", port)
    assert code == 2 and f"Port {port} is taken" in complaint and f"--port {int(port) + 1}" in complaint


def test_without_gradio_one_sentence_says_what_to_type(command, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as importing sees a package that is not there
    code, _, complaint = command("page", "--run", trained.name, "--output-dir", trained.parent.parent)
    assert code == 2 and "make .venv-page/complete" in complaint


@pytest.mark.parametrize("port", ["http", "0", "70000"])
def test_a_port_that_does_not_exist_is_refused(command, port):
    code, _, complaint = command("page", "--port", port)
    assert code == 2 and "for --port" in complaint


@pytest.mark.parametrize(
    "words", [("page", "--help"), ("page", "--prot", "1"), ("page", "--port", "http")], ids=" ".join
)
def test_help_and_the_error_for_an_invalid_argument_import_nothing_heavy(words):
    assert not (HEAVY | {"gradio"}) & imported_by(*words)

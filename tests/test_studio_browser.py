"""The studio's page in a real browser: Debian's chromium, driven by Playwright. STUDIO_PICTURES names a folder for screenshots."""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")
pytest.importorskip("playwright.sync_api", reason="the browser tests need pip install playwright")

from PIL import Image, ImageDraw
from playwright import sync_api as api

from dreamfusion.studio.desk import Desk
from tests.faults import environment
from tools.studio_pictures import GPU, served

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium (apt-get install chromium)"),
]

PATIENCE = 120_000


class Critic:
    def notes(self, prompt: str) -> list[str]:
        return [f"the bundled prior was never taught 'limousine' in {prompt!r}"] if "limousine" in prompt else []

    def seen(self, picture: Path) -> str:
        return "a red mug (71 %)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=list(GPU), timeout=PATIENCE)
        yield found
        found.close()


@pytest.fixture
def address(
    tmp_path: Path, made_once: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[str]:
    """A studio with two finished runs; each step of a new one takes some seconds."""
    words = ("looks",) if "newcomer" in request.node.name else ()
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Path(os.environ.get("STUDIO_MADE", made_once))
    finished = tmp_path / "runs" / "finished-0"
    shutil.copytree(made, finished)
    page = yaml.safe_load((finished / "run.yaml").read_text())
    page["config"]["prompt"] = "a first chair"
    (finished / "run.yaml").write_text(yaml.safe_dump(page))
    shutil.copytree(finished, tmp_path / "runs" / "finished-1")
    worker = (sys.executable, "-m", "tests.studio_worker", str(made), "5", *words)
    at_once = 2 if "several" in request.node.name else 1
    with served(Desk(tmp_path / "runs", worker=worker, at_once=at_once), Critic()) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The studio's page. At the end: nobody else was asked for anything, and nothing was complained about."""
    found = browser.new_page(viewport={"width": 1280, "height": 860})
    found.set_default_timeout(PATIENCE)
    asked: list[str] = []
    said: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: said.append(str(error)))
    found.goto(address)
    found.wait_for_selector("#preset option", state="attached")
    yield found
    found.close()
    foreign = [url for url in asked if not url.startswith((address, "blob:", "data:"))]
    assert foreign == [] and [line for line in said if "404" not in line and "422" not in line] == []


def until(page: Any, true: str) -> None:
    """Wait for an expression. Playwright's own ``wait_for_function`` needs ``eval``, which the page's policy forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(true):
        assert time.monotonic() < end, true
        page.wait_for_timeout(100)


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get("STUDIO_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png")


def tab_to(page: Any, selector: str, text: str = "") -> None:
    """Press Tab until the element that matches, and whose text begins so, has the focus."""
    has_it = "([selector, text]) => document.activeElement.matches(selector) && document.activeElement.textContent.startsWith(text)"
    for _ in range(80):
        if page.evaluate(has_it, [selector, text]):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector} {text}")


def test_a_newcomer_makes_pauses_stops_resumes_and_keeps_an_asset_by_keyboard(page: Any) -> None:
    """Nothing is clicked, and nothing but the keyboard moves the focus."""
    keys = page.keyboard
    tab_to(page, "#prompt")
    keys.type("a red arm")
    page.wait_for_selector("#words li")
    keys.press("ArrowDown")
    keys.press("Enter")
    assert page.input_value("#prompt") == "a red armchair"
    page.wait_for_selector("#notes .good")
    keys.type(" limousine")
    page.wait_for_selector("#notes li:has-text('never taught')")
    picture(page, "warning")
    for _ in " limousine":
        keys.press("Backspace")
    tab_to(page, "[id='set-distillation.guidance_scale']")  # not folded away
    assert "distillation.guidance_scale" in page.inner_text("#main-help")
    tab_to(page, "#make .primary")
    keys.press("Space")
    page.wait_for_selector("#now:not([hidden])")
    until(page, "document.querySelector('#now-picture').src.includes('live.jpg')")
    until(page, "document.querySelectorAll('#now-plots .plot path').length === 3")
    until(page, "document.querySelector('#now-prior img')?.naturalWidth > 0")
    assert "noise level t = 0.42" in page.inner_text("#now-prior figcaption")
    assert "step" in page.inner_text("#now-figures") and page.inner_text("#now-title") == "a red armchair"
    picture(page, "running")
    page.evaluate(
        "(image) => { window.own = 0; new MutationObserver(() => { window.own += image.src.startsWith('blob:'); })"
        ".observe(image, { attributes: true }); }",
        page.query_selector("#now-picture"),
    )
    tab_to(page, "#now-picture")
    keys.press("ArrowLeft")
    until(page, "window.own > 0")  # a picture that the page has fetched itself
    newest = "fetch('/runs').then((r) => r.json()).then((runs) => runs[0])"
    until(page, f"{newest}.then((run) => run.metrics?.azimuth === 10)")
    keys.press("Escape")
    until(page, f"{newest}.then((run) => run.step >= 3)")  # the worker waits for that

    tab_to(page, "#now-pause", "Pause")
    keys.press("Enter")
    page.wait_for_selector("#now-state:has-text('paused')")
    picture(page, "paused")
    tab_to(page, "#now-pause", "Go on")
    keys.press("Space")
    page.wait_for_selector("#now-state:has-text('in progress')")
    page.reload()  # the run does not mind
    page.wait_for_selector("#now-stop")
    tab_to(page, "#now-stop")
    keys.press("Enter")
    page.wait_for_selector(".card:has-text('a red armchair') .badge.stopped")
    tab_to(page, ".card button[aria-label^='Open a red armchair']")
    keys.press("Enter")
    seen = "document.querySelector('#scene-picture')"
    until(page, f"{seen}.src.startsWith('blob:') && {seen}.naturalWidth === 384")  # drawn from the checkpoint
    picture(page, "stopped")
    front = page.evaluate(f"{seen}.src")
    tab_to(page, "#scene-picture")
    keys.press("ArrowLeft")
    until(page, f"{seen}.src !== {front!r} && {seen}.naturalWidth === 160")
    until(page, f"{seen}.naturalWidth === 384")  # it rests
    tab_to(page, "#viewer button", "Change …")
    keys.press("Enter")
    page.wait_for_selector("#resume[open]")
    tab_to(page, "#resume-find")
    keys.type("export.faces")
    tab_to(page, "[id='new-export.faces']")
    keys.type("300")
    page.wait_for_selector("#resume-notes li:has-text('the run has that value already')")
    keys.type("x")
    keys.press("Enter")
    page.wait_for_selector("#resume .error:has-text(\"export.faces = '300x' is not allowed\")")
    picture(page, "change")
    for _ in "0x":
        keys.press("Backspace")
    keys.type("1")
    keys.press("Enter")
    until(page, "!document.querySelector('#resume').open")
    keys.press("Escape")
    page.wait_for_selector(".card:has-text('a red armchair') .badge.done")
    picture(page, "gallery")

    tab_to(page, ".card button[aria-label^='Open a red armchair']")
    keys.press("Enter")
    until(page, "document.querySelector('model-viewer')?.loaded === true")
    page.wait_for_selector("#viewer .plot[data-key=opacity] path")  # it is over, and its curves are there
    tab_to(page, "model-viewer")
    until(
        page, "document.activeElement.shadowRoot?.activeElement?.classList.contains('userInput')"
    )  # its poster is gone
    turned = "Math.abs(document.querySelector('model-viewer').getCameraOrbit().theta)"
    assert page.evaluate(turned) < 0.1
    keys.press("ArrowLeft")
    until(page, f"{turned} > 0.1")
    picture(page, "viewer")
    tab_to(page, "#viewer a", "Download GLB")
    with page.expect_download() as download:
        keys.press("Enter")
    assert Path(download.value.path()).read_bytes()[:4] == b"glTF"
    tab_to(page, "#viewer button", "Export")
    keys.press("Space")
    page.wait_for_selector("#export[open] #export-format")
    picture(page, "export")
    keys.press("Escape")
    page.on("dialog", lambda dialog: dialog.accept())
    tab_to(page, "#viewer button", "Delete")
    keys.press("Enter")
    until(page, "!document.querySelector('#gallery').innerText.includes('a red armchair')")


def test_the_settings_of_a_run_replace_those_of_the_form(page: Any) -> None:
    """What was typed before is gone, and what is sent then is what the studio says of the run."""
    page.fill("#steps", "77")
    page.fill("[id='set-distillation.guidance_scale']", "9")
    page.click("#make summary")
    page.fill("[id='set-scene.lr_head']", "0.5")
    assert page.inner_text("#others") == "(1 set)"
    page.fill("[id='set-view.fov_deg']", "33")
    picture(page, "form")
    page.click(".card:has-text('a first chair') button")
    page.click("#viewer button:has-text('Use these settings')")
    until(page, "!document.querySelector('#viewer').open")
    again = page.evaluate("fetch('/runs/finished-0').then((r) => r.json()).then((run) => run.again)")
    assert len(again["settings"]) > 10 and page.input_value("#prompt") == again["prompt"] == "a first chair"
    inputs = "[...document.querySelectorAll('#make [data-name]')].filter((input) => input.value)"
    filled = page.evaluate(f"Object.fromEntries({inputs}.map((input) => [input.dataset.name, input.value]))")
    assert filled == {"seed": "0"} | again["settings"] and page.input_value("#preset") == again["preset"]
    with page.expect_request("**/runs") as sent:
        page.click("#make .primary")
    body = sent.value.post_data_json
    assert body == again | {"settings": filled, "picture": "", "start": ""}
    page.click(".card:has-text('a first chair') button")
    page.click("#viewer button:has-text('Begin from this')")
    page.wait_for_selector("#begins:has-text('finished-')")
    picture(page, "begin")


def test_a_phone_and_two_tabs(page: Any, browser: Any, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_selector(".card")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    picture(page, "phone")
    other = browser.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(address)
    other.fill("#prompt", "a crash")
    other.click("#make .primary")
    page.wait_for_selector(".card:has-text('a crash') .badge.failed")  # the worker is gone, the page is not
    page.click(".card:has-text('a crash') button")
    assert "its process ended (9)" in page.inner_text("#viewer")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    other.fill("#prompt", "a chair")
    other.fill("#steps", "-3")
    other.evaluate("document.querySelector('#steps').removeAttribute('pattern')")
    other.click("#make .primary")
    other.wait_for_selector("#form-error:has-text('steps = \\'-3\\' is not allowed')")
    page.keyboard.press("Escape")
    other.fill("#steps", "3")
    other.click("#make .primary")
    page.wait_for_selector("#now:not([hidden])")
    now, form = (page.query_selector(place).bounding_box() for place in ("#now", "#make"))
    assert now["y"] + now["height"] <= form["y"]  # what one watches comes first,
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.focus(".skip")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "now-picture"  # for the keyboard, too
    picture(page, "phone-running")
    other.evaluate("scrollTo(0, 0)")  # else the form sticks to the window's edge
    now, form, every = (other.query_selector(place).bounding_box() for place in ("#now", "#make", "#all"))
    assert form["x"] + form["width"] < now["x"] == every["x"] and form["y"] == now["y"]
    assert now["y"] + now["height"] <= every["y"] < form["y"] + form["height"]
    other.close()


def test_several_runs_in_progress_and_one_that_is_changed(page: Any) -> None:
    for prompt in ("a lamp", "a second"):
        page.fill("#prompt", prompt)
        page.click("#make .primary")
        page.wait_for_selector(f".card:has-text('{prompt}')")
    page.wait_for_selector("#now-tabs button:has-text('a second')")
    assert page.inner_text("#now-title") == "a lamp"
    page.click("#now-tabs button:has-text('a second')")
    assert page.inner_text("#now-title") == "a second"
    assert page.inner_text("#now-tabs [aria-pressed=true]") == "a second"
    until(page, "document.querySelectorAll('#now-plots .plot').length === 3")
    page.click("#now-change")
    page.fill("#resume-find", "scene.lr")
    page.fill("[id='new-scene.lr']", "0.05")
    picture(page, "several-change")
    page.click("#resume button:has-text('Go on')")
    until(page, "!document.querySelector('#resume').open")
    second = "fetch('/runs').then((r) => r.json()).then((runs) => runs.find((run) => run.prompt === 'a second'))"
    until(
        page, f"{second}.then((run) => run.state === 'running' && run.step === 1)"
    )  # a new process, which counts anew
    page.click("#now-pause")
    page.wait_for_selector("#now-state.paused")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.evaluate("scrollTo(0, 0)")
    picture(page, "several-phone")
    page.wait_for_selector(".card:has-text('a lamp') .badge.done")
    assert page.inner_text("#now-title") == "a second" and page.is_hidden("#now-tabs")  # it waits to go on


def test_two_assets_side_by_side(page: Any) -> None:
    page.wait_for_selector(".compare input >> nth=1")  # both are in the gallery
    for box in page.query_selector_all(".compare input"):
        box.click()
    page.wait_for_selector("#compare[open]")
    until(page, "[...document.querySelectorAll('#compare model-viewer')].filter((v) => v.loaded).length === 2")
    box = page.query_selector("#compare model-viewer").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 220, box["y"] + 140, steps=4)
    page.mouse.up()
    turned = "[...document.querySelectorAll('#compare model-viewer')].map((v) => v.getCameraOrbit())"
    until(
        page,
        f"(([a, b]) => Math.abs(a.theta) > 0.1 && Math.abs(a.theta - b.theta) + Math.abs(a.phi - b.phi) < 0.02)({turned})",
    )
    page.wait_for_timeout(500)
    picture(page, "compare")
    page.keyboard.press("Escape")
    until(page, "document.querySelectorAll('.compare input:checked').length === 0")


def test_an_asset_as_clay_by_its_normals_and_with_its_triangles(page: Any) -> None:
    """The pixels in the middle of the picture, seen from the front: the normal there looks at us, along +Z."""
    page.click(".card:has-text('a first chair') button")
    until(page, "document.querySelector('model-viewer')?.loaded === true")
    page.evaluate(
        "(viewer) => { viewer.autoRotate = false; viewer.resetTurntableRotation(0); viewer.cameraOrbit = '0deg 90deg 105%';"
        " viewer.jumpCameraToGoal(); }",
        page.query_selector("model-viewer"),
    )

    def middle(button: str) -> np.ndarray:
        page.click(f".looks button:has-text('{button}')")
        page.wait_for_timeout(500)
        if "Wireframe" in page.inner_text(".looks button[aria-pressed=true] >> nth=-1") or button != "Wireframe":
            picture(page, f"look-{button.lower()}")
        url = page.evaluate("document.querySelector('model-viewer').toDataURL('image/png')")
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(int)
        height, width = drawn.shape[:2]
        return drawn[height // 2 - 10 : height // 2 + 10, width // 2 - 10 : width // 2 + 10].reshape(-1, 3)

    colour, clay, normals = middle("Colour"), middle("Clay"), middle("Normals")
    assert np.ptp(clay, axis=1).max() < 12 and abs(clay.mean() - colour.mean()) > 10
    red, green, blue = normals.mean(0)
    assert blue > 200 and abs(red - 127) < 60 and abs(green - 127) < 60
    wires = middle("Wireframe")
    assert (wires.sum(1) < 150).any() and not (normals.sum(1) < 150).any()
    triangles = page.evaluate("fetch('/runs/finished-0').then((r) => r.json()).then((run) => run.figures.triangles)")
    assert page.inner_text(".looks button[aria-pressed=true] >> nth=1") == f"Wireframe, {triangles:,} triangles"
    assert np.array_equal(middle("Wireframe"), normals)  # off again
    assert np.array_equal(middle("Colour"), colour)


def test_a_picture_in_place_of_words(page: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.set_input_files("#picture", str(tmp_path / "bad.png"))
    page.wait_for_selector("#seen:has-text('no picture')")
    drawing = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(drawing).ellipse((60, 60, 140, 140), fill="red")
    drawing.save(tmp_path / "mug.png")
    page.set_input_files("#picture", str(tmp_path / "mug.png"))
    page.wait_for_selector("#seen:has-text('a red mug (71 %)')")
    assert page.input_value("#preset") == "zero123"
    picture(page, "picture")
    page.click("#no-picture")
    assert page.input_value("#preset") == "fast"
    page.set_input_files("#picture", str(tmp_path / "mug.png"))
    until(page, "document.querySelector('#preset').value === 'zero123'")
    page.click("#make .primary")
    page.wait_for_selector(".card .badge.done >> nth=2")

"""Draw the studio's page for the docs: ``python tools/studio_pictures.py RUNS [--prompt "a blue teapot"] [--more FOLDER]``.

RUNS is a folder with finished runs. They are shown in the gallery while one more is made, in a copy of the folder, and the page is
drawn by a headless chromium. Writes docs/studio.jpg and docs/studio-asset.jpg. With ``--more`` also PNGs of other parts of the
page, of a phone's width, and in the dark, to look at.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"
GPU = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--prompt", default="a blue teapot", help="of the run in progress")
    parser.add_argument("--seed", default="1", help="of the run in progress")
    parser.add_argument("--steps", default="110", help="of the run in progress")
    parser.add_argument("--share", type=float, default=0.7, help="of the steps after which the page is drawn")
    parser.add_argument("--open", default="", help="the id of the asset that is opened [the newest]")
    parser.add_argument("--more", type=Path, help="a folder for other pictures")
    args = parser.parse_args()
    with studio(args.runs) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(GPU))
        page = browser.new_page(viewport=WIDE)
        page.set_default_timeout(600_000)
        page.goto(address)
        page.wait_for_selector("#preset option", state="attached")
        page.fill("#prompt", args.prompt)
        page.fill("#seed", args.seed)
        page.fill("#steps", args.steps)
        page.wait_for_selector("#notes .good")
        page.click("#make .primary")
        until(page, f"Number(document.querySelector('#now-progress')?.value) >= {args.share * float(args.steps)}")
        until(page, "document.querySelector('#now-prior img')?.naturalWidth > 0")
        keep(page, DOCS / "studio.jpg")
        if args.more:
            look_around(browser, address, args.more)
        page.click("#now-stop")
        page.wait_for_selector(".card .badge.stopped")
        page.set_viewport_size({"width": 1080, "height": 800})
        page.click(f".card:has(img[src*='/{args.open}']) > button" if args.open else ".card:has(.badge.done) > button")
        page.wait_for_selector("model-viewer.loaded")  # then its bar is gone, too
        page.wait_for_timeout(2000)  # the picture fades in
        keep(page, DOCS / "studio-asset.jpg")
        if args.more:
            for name in ("asset-below.png", "asset-phone.png"):
                page.evaluate("document.querySelector('#viewer').scrollTo(0, 1e4)")
                page.screenshot(path=args.more / name)
                page.set_viewport_size(PHONE)
            page.set_viewport_size(WIDE)
            page.keyboard.press("Escape")
            page.click(".card:has(.badge.stopped) > button")
            until(page, "document.querySelector('#scene-picture').naturalWidth === 384")
            page.screenshot(path=args.more / "stopped.png")
            page.click("#viewer button:has-text('Change …')")
            page.fill("#resume-find", "guidance")
            page.fill("[id='new-distillation.guidance_scale']", "0")
            page.wait_for_selector("#resume-notes li")
            page.screenshot(path=args.more / "change.png")


def look_around(browser: Any, address: str, folder: Path) -> None:
    """The page as a phone and a dark desktop show it, from top to bottom."""
    for name, size, colours in (("phone", PHONE, "light"), ("phone-dark", PHONE, "dark"), ("dark", WIDE, "dark")):
        page = browser.new_page(viewport=size, color_scheme=colours)
        page.goto(address)
        page.wait_for_selector(".card img")
        page.wait_for_timeout(3000)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        print(f"{name}: {wide} pixels wider than the window")
        page.close()


def keep(page: Any, path: Path) -> None:
    """Write what the window shows as a JPEG."""
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(path, quality=90, optimize=True)


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true. Playwright's own ``wait_for_function`` needs ``eval``, which the page's policy forbids."""
    while not page.evaluate(expression):
        page.wait_for_timeout(100)


@contextmanager
def studio(runs: Path) -> Iterator[str]:
    """The address of a studio of a copy of these runs."""
    from dreamfusion.studio.desk import Desk

    with tempfile.TemporaryDirectory() as place:
        for run in runs.iterdir():
            if (run / "asset.glb").is_file():
                shutil.copytree(run, Path(place) / run.name, ignore=shutil.ignore_patterns("*.safetensors"))
        with served(Desk(Path(place))) as address:
            yield address


@contextmanager
def served(desk: Any, critic: Any = None) -> Iterator[str]:
    """The address of a studio with this desk, which is started and closed."""
    import uvicorn

    from dreamfusion.studio.web import make_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(desk, critic=critic), port=port, log_level="error"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    desk.start()
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    desk.close()
    thread.join()


if __name__ == "__main__":
    main()

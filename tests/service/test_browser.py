import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pictures import encode, jpeg
from project import Project, environment, free_port, wait_for


@pytest.fixture
def address(evaluated: Project) -> Iterator[str]:
    port = free_port()
    command = ["hiwl", "serve", "--weights", "models/choice", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        wait_for(process, f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}/"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0  # it answers what is under way, and ends


@pytest.mark.elsewhere
def test_a_person_drops_pictures_in_and_sees_what_they_are_by_mouse_and_by_keyboard(
    address: str, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    files = [tmp_path / name for name in ("galaxy.jpg", "<b>broken.jpg", "blank.png")]
    contents = [jpeg(3, side=256), b"no picture", encode(np.zeros((256, 256, 3), np.uint8))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        page.get_by_label("Drop pictures of galaxies here").set_input_files(files)
        page.get_by_role("status").get_by_text("3 pictures answered", exact=True).wait_for()
        first, second, third = page.locator("#answers > li").all()
        assert first.get_by_role("meter").count() == 5
        assert first.get_by_role("meter", name="probability of CSS").count() == 1
        for words in ("one of these (95 %)", "root > ", "views", "distance from training"):
            assert words in first.inner_text()
        assert "<b>broken.jpg" in second.inner_text()
        assert "not answered: not a JPEG" in second.inner_text()
        assert "not answered: blank" in third.inner_text()
        button = first.get_by_role("button", name="show where the network looked in galaxy.jpg")
        button.focus()
        page.keyboard.press("Enter")
        page.get_by_alt_text("Grad-CAM of galaxy.jpg").wait_for()
        assert wrong == []
        browser.close()

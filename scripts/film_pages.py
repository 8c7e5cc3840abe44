"""Film the control room: the pictures of docs/control-room.md, and the clip of the READMEs.

    python scripts/film_pages.py http://localhost:8000
    python scripts/film_pages.py http://localhost:8000 --language ja

It trains on that server (a few seconds on CartPole), drives headless Chromium through its pages,
and writes a picture of each page to `docs/images/`, and in English `control-room.webp`, half a
minute. Use a server on a store of its own: what is in the lists is in the pictures.
"""

import argparse
import base64
import io
import shutil
import time
from pathlib import Path

import gymnasium
import requests
from PIL import Image
from selenium import webdriver
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from grpo_platform.web.catalogue import LANGUAGES, messages

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (1120, 720)
CLIP_SIZE = (840, 540)
QUALITY = 55
SECONDS = 300
MOTION_MS, PAUSE_MS = 180, 1800
ENVIRONMENTS = 8
TRANSLATED = ("app-job", "app-play", "app-model")
"""Those that the guides show, each in its language."""


class Film:
    """Frames of a browser, each shown for its time."""

    def __init__(self, driver: Chrome, language: str) -> None:
        self.driver = driver
        self.words = messages(language)
        self.suffix = "" if language == LANGUAGES[0] else f".{language}"
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def shoot(self, milliseconds: int = PAUSE_MS) -> Image.Image:
        """Add what is seen now."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        picture = Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB")
        self.frames.append(picture.resize(CLIP_SIZE, Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)
        return picture

    def keep(self, name: str) -> None:
        """Add what is seen now, and keep it as a picture."""
        picture = self.shoot()
        if not self.suffix or name in TRANSLATED:
            picture.save(IMAGES / f"{name}{self.suffix}.webp", "WEBP", quality=80, method=6)

    def run(self, seconds: float) -> None:
        """Add what moves, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.shoot(MOTION_MS)

    def until(self, key: str, **values: object) -> None:
        """Wait until the page shows what the catalogue has under a key."""
        text = self.words[key].partition("{")[0] if not values else self.words[key].format(**values)
        WebDriverWait(self.driver, SECONDS, ignored_exceptions=[Exception]).until(
            lambda it: text in it.find_element(By.TAG_NAME, "body").text,
            f"{text!r} does not appear",
        )

    def click(self, css: str, key: str) -> None:
        """Click the first of a kind with the words of a key, once it is there."""
        text = self.words[key]

        def found(it: Chrome) -> bool:
            for element in it.find_elements(By.CSS_SELECTOR, css):
                if text in element.text and element.is_enabled() and element.is_displayed():
                    element.click()
                    return True
            return False

        WebDriverWait(self.driver, SECONDS, ignored_exceptions=[Exception]).until(found, text)

    def save(self, path: Path) -> None:
        """Write the clip, an animated WebP."""
        first, *rest = self.frames
        first.save(
            path, "WEBP", save_all=True, append_images=rest, duration=self.durations, loop=0,
            quality=QUALITY, method=4, minimize_size=True,
        )  # fmt: skip


def chromium(language: str) -> Chrome:
    """A headless browser of the pictures' size."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     "--disable-background-networking", "--disable-dev-shm-usage"):  # fmt: skip
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    driver = Chrome(options=options, service=service)
    metrics = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    headers = {"headers": {"Accept-Language": language}}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", headers)
    return driver


def train(url: str, **fields: object) -> str:
    """Start a job; returns its id."""
    reply = requests.post(f"{url}/train", json=fields, timeout=60)
    reply.raise_for_status()
    return str(reply.json()["job_id"])


def finished(url: str, job_id: str) -> bool:
    """Whether a job is completed, and its version decided about."""
    job = requests.get(f"{url}/training/{job_id}/status", timeout=60).json()
    return job["status"] == "completed" and job["promoted"] is not None


def main() -> None:
    """Film a server's pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://localhost:8000")
    parser.add_argument("--language", choices=LANGUAGES, default=LANGUAGES[0])
    given = parser.parse_args()
    url = given.url.rstrip("/")
    weak = train(url, model_name="balance", total_timesteps=300, seed=1)
    while not finished(url, weak):
        time.sleep(0.3)
    driver = chromium(given.language)
    film = Film(driver, given.language)
    try:
        story(film, url)
    finally:
        driver.quit()
    if not film.suffix:
        film.save(IMAGES / "control-room.webp")
    print(f"{len(film.frames)} frames, {sum(film.durations) / 1000:.0f} s")


def play(url: str, steps: int) -> None:
    """Let the champion balance, asked over HTTP."""
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=5)
    with requests.Session() as session:
        for _ in range(steps):
            body = {"model_name": "balance", "observation": observation.tolist()}
            action = session.post(f"{url}/inference", json=body, timeout=30).json()["action"]
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()
            time.sleep(0.01)
    env.close()


def story(film: Film, url: str) -> None:
    """A newcomer starts a job, watches it, plays, asks why, compares and looks at what serves."""
    film.driver.get(f"{url}/app?new=1")
    film.until("start.same")
    WebDriverWait(film.driver, SECONDS).until(
        lambda it: len(it.find_elements(By.CSS_SELECTOR, ".gallery img")) >= ENVIRONMENTS
    )
    film.keep("app-start")
    job_id = train(url, model_name="balance", total_timesteps=20_000, eval_freq=2000, seed=3)
    film.driver.get(f"{url}/app/jobs/{job_id}")
    film.until("job.return")
    while not finished(url, job_id):
        film.run(1.0)
    film.until("verdict.champion")
    shown = "return (document.querySelector('video') || {}).readyState >= 1"
    WebDriverWait(film.driver, SECONDS).until(lambda it: it.execute_script(shown))
    film.keep("app-job")
    film.driver.get(f"{url}/app/play?model=balance&seed=3")
    film.until("play.at", step=0, last=0)
    film.click("button", "play.play")
    film.run(3)
    film.click("button", "play.pause")
    film.click("button", "play.explain")
    film.shoot()
    film.until("play.attribution")
    film.driver.execute_script(
        "document.querySelector('.why h2').scrollIntoView({ block: 'center' })"
    )
    film.keep("app-play")
    film.driver.get(f"{url}/app/models/balance")
    film.until("job.version", version=2)
    film.shoot()
    for box in film.driver.find_elements(By.CSS_SELECTOR, ".versions input[type=checkbox]")[:2]:
        box.click()
    film.click("button", "model.play_both")
    film.until("compare.probability")
    film.keep("app-model")
    play(url, 600)
    film.driver.get(f"{url}/app/serving#balance/2")
    film.until("serving.evaluation")
    WebDriverWait(film.driver, SECONDS).until(
        lambda it: len(it.find_elements(By.CSS_SELECTOR, ".histogram path")) > 1
    )
    film.keep("app-serving")
    film.driver.get(f"{url}/app")
    film.until("jobs.group")
    time.sleep(1)
    film.keep("app-jobs")


if __name__ == "__main__":
    main()

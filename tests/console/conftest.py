"""A service and a browser: every test of the console looks through the one at the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from models.bundle import Bundle
from service.app import create_app
from service.engine import Engine, FakeEngine
from service.settings import Settings
from tests.grey_parts import write_version
from tests.listening import listening

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

Page = Any  # playwright.Page, where playwright is there


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    write_version(store)
    return store


@pytest.fixture
def serve(store: Path, tmp_path: Path) -> Iterator[Callable[..., httpx.Client]]:
    """Start a service on a free port; keywords are settings."""
    with ExitStack() as running:

        def start(
            open_engine: Callable[[Bundle], Engine] = lambda bundle: FakeEngine(), **given: object
        ) -> httpx.Client:
            settings = Settings(store=store, data=tmp_path / "data", scan_seconds=0.05, **given)
            app = create_app(settings, open_engine=open_engine)
            host, port = running.enter_context(listening(app))
            running.callback(app.state.live.close)
            client = httpx.Client(base_url=f"http://{host}:{port}", timeout=30)
            return running.enter_context(client)

        yield start


@pytest.fixture
def api(serve: Callable[..., httpx.Client]) -> httpx.Client:
    """A client of a service of its own."""
    return serve()


@pytest.fixture(scope="module")  # its event loop would be in the way of other tests' own
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: [dev] extra")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    playwright.expect.set_options(timeout=20_000)  # a busy machine is not a broken page
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser that nobody has used yet, as large as a touch panel."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en")
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: Any, api: httpx.Client) -> Page:
    """The console, opened by Aya."""
    return open_page(context, api)


def open_page(context: Any, api: httpx.Client, operator: str = "Aya") -> Page:
    page = context.new_page()
    page.add_init_script(
        f"localStorage.getItem('kizu.operator') ?? "
        f"localStorage.setItem('kizu.operator', '{operator}')"
    )
    page.goto(str(api.base_url))
    return page


@pytest.fixture
def complaints_of() -> Callable[[Page], list[str]]:
    """What a page's console says of errors from here on; a breach of the CSP is one."""

    def listen(page: Page) -> list[str]:
        said: list[str] = []
        page.on("console", lambda text: said.append(text.text) if text.type == "error" else 0)
        page.on("pageerror", lambda error: said.append(str(error)))
        return said

    return listen


@pytest.fixture
def complaints(page: Page, complaints_of: Callable[[Page], list[str]]) -> list[str]:
    return complaints_of(page)

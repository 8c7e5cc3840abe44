"""The pages: who sees them, in which language, and what they may load."""

import ast
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from grpo import GRPOConfig
from grpo.hints import TEXTS
from grpo_platform import web
from grpo_platform.api.errors import ERROR_TABLE
from grpo_platform.api.schemas.experiments import TrainBody
from grpo_platform.comparisons.wording import WARNINGS
from grpo_platform.core.access import Sessions
from grpo_platform.core.settings import Settings
from grpo_platform.jobs.failures import OUT_OF_MEMORY
from grpo_platform.web.catalogue import LANGUAGES, choose_language, messages
from grpo_platform.web.pages import PAGES, static_digest
from grpo_platform.web.security import HOME, SIGN_IN, next_page
from tests.service.api_support import BASE, client_of, services_in

TOKEN = "t" * 32
FOLDER = Path(web.__file__).parent
STATIC = FOLDER / "static"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OWN = {"Origin": BASE}
VENDORED_BYTES, OUR_BYTES = 32_000, 48_000


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with services_in(tmp_path_factory.mktemp("web")) as services:
        yield services


@pytest.fixture
def open_client(services):
    return client_of(services)


@pytest.fixture
def client(services):
    guarded = client_of(services, Settings(mlflow_ui_port=0, api_token=TOKEN))
    guarded.follow_redirects = False
    return guarded


@pytest.fixture
def signed_in(client):
    reply = client.post(SIGN_IN, data={"token": TOKEN, "next": "/app/models"}, headers=OWN)
    assert (reply.status_code, reply.headers["Location"]) == (303, "/app/models")
    return client


def test_the_form_knows_the_usual_budget():
    (found,) = re.findall(r"const TIMESTEPS = (\d+);", (STATIC / "start.js").read_text())
    assert int(found) == GRPOConfig().total_timesteps


# --- negotiation


def test_the_root_is_json_for_programs_and_the_pages_for_browsers(open_client):
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        reply = open_client.get("/", headers=headers)
        assert reply.json()["message"].startswith("GRPO Platform")
        assert reply.headers["Vary"] == "Accept"
    reply = open_client.get("/", headers=HTML, follow_redirects=False)
    assert (reply.status_code, reply.headers["Location"]) == (302, HOME)
    assert reply.headers["Vary"] == "Accept"


@pytest.mark.parametrize("modules", PAGES.values(), ids=PAGES)
def test_a_page_names_all_modules_that_it_is_made_of(modules):
    """Those that it does not name are only asked for once another one has come."""
    found, new = set(), {modules[0], "lib"}
    while new:
        found |= new
        texts = [(STATIC / f"{name}.js").read_text() for name in new]
        new = set(re.findall(r"from '\./([\w/-]+)\.js'", "".join(texts))) - found
    assert set(modules) == found - {"lib", "vendor/htm-preact"}  # which all pages name


@pytest.mark.rotated(7)
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_strict_about_what_it_loads(open_client, path):
    reply = open_client.get(re.sub(r"\{\w+\}", "x", path), headers=HTML)
    assert reply.status_code == 200
    policy = dict(
        part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    sources = {word for allowed in policy.values() for word in allowed.split()}
    assert sources == {"'none'", "'self'", "data:", "blob:"}
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert reply.headers["Referrer-Policy"] == "same-origin"
    page = reply.text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    for script in re.findall(r"<script[^>]*>", page):
        assert " src=" in script or 'type="application/json"' in script
    for address in re.findall(r'(?:src|href)="([^"#]*)"', page):
        assert re.match(r"/(?!/)", address), address
        if "/static/" in address:
            loaded = open_client.get(address)
            assert loaded.status_code == 200, address
            assert "immutable" in loaded.headers["Cache-Control"]


def test_a_page_that_is_not_there_is_one_for_browsers(open_client):
    for path in ("/app/nothing", "/app/jobs", "/app/models/a/b", "/app/static/x/app.js"):
        reply = open_client.get(path, headers=HTML)
        assert reply.status_code == 404
        assert 'id="main"' in reply.text
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        refused = open_client.get(path)
        assert refused.status_code == 404
        assert refused.json()["title"] == "Not Found"


def test_files_have_new_addresses_when_they_change(open_client):
    page = open_client.get(HOME, headers=HTML).text
    assert f"/app/static/{static_digest()}/app.js" in page
    assert open_client.get("/app/static/000000000000/app.js").status_code == 404
    assert open_client.get(f"/app/static/{static_digest()}/../pages.py").status_code == 404


# --- signing in


def test_a_browser_without_a_session_is_asked_for_the_token(client):
    reply = client.get("/app/jobs/x?tab=log", headers=HTML)
    assert reply.status_code == 303
    assert reply.headers["Location"] == f"{SIGN_IN}?next=/app/jobs/x%3Ftab%3Dlog"
    assert client.get("/", headers=HTML).headers["Location"] == f"{SIGN_IN}?next=/app"
    page = client.get(reply.headers["Location"], headers=HTML)
    assert 'value="/app/jobs/x?tab=log"' in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_programs_are_still_refused(client):
    for path in ("/app", "/", "/training/jobs", "/app/nothing"):
        assert client.get(path).status_code == 401, path
    assert client.get("/training/jobs", headers=HTML).status_code == 401


def test_the_wrong_token_opens_nothing(client):
    for token in ("", "x" * 32, TOKEN + "t", TOKEN[:-1]):
        reply = client.post(SIGN_IN, data={"token": token}, headers=OWN)
        assert reply.status_code == 403
        assert "set-cookie" not in reply.headers
        assert 'role="alert"' in reply.text
    assert client.post(SIGN_IN, content=b"x" * 10_000, headers=OWN).status_code == 403
    assert client.post(SIGN_IN, data={"token": TOKEN}, headers={"Origin": "http://evil.test"})\
        .status_code == 403  # fmt: skip


def test_the_cookie_is_no_token_and_scripts_cannot_read_it(client):
    reply = client.post(SIGN_IN, data={"token": TOKEN}, headers=OWN)
    cookie = reply.headers["Set-Cookie"]
    assert TOKEN not in cookie
    for word in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    assert "Secure" not in cookie
    behind_tls = client.post(
        SIGN_IN, data={"token": TOKEN}, headers={"Origin": BASE.replace("http:", "https:")}
    )
    assert "Secure" in behind_tls.headers["Set-Cookie"]


def test_a_session_calls_the_api_as_the_header_does(signed_in):
    assert signed_in.get("/training/jobs").status_code == 200
    assert signed_in.get(HOME, headers=HTML).status_code == 200
    assert signed_in.get("/docs", headers=HTML).status_code == 200
    assert signed_in.get(SIGN_IN, headers=HTML).headers["Location"] == HOME
    # a wrong header is not made up for by a cookie
    assert signed_in.get("/training/jobs", headers={"X-API-Key": "x" * 32}).status_code == 401


def test_a_session_changes_things_from_our_own_pages_only(signed_in):
    path = "/training/00000000000000000000000000000000/stop"
    for headers in (OWN, {"Sec-Fetch-Site": "same-origin"}):
        assert signed_in.post(path, headers=headers).status_code == 404
    for headers in ({}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}):
        refused = signed_in.post(path, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (
            403, "urn:grpo-platform:problem:foreign-write",
        )  # fmt: skip
    other = {"Origin": "http://127.0.0.1:9000", "Sec-Fetch-Site": "same-site"}
    assert signed_in.post(path, headers=other).status_code == 403


def test_an_origin_that_may_call_has_no_session(services):
    listed = "http://tool.test"
    settings = Settings(mlflow_ui_port=0, api_token=TOKEN, cors_origins=listed)
    client = client_of(services, settings)
    client.post(SIGN_IN, data={"token": TOKEN}, headers=OWN, follow_redirects=False)
    path = "/training/00000000000000000000000000000000/stop"
    assert client.post(path, headers={"Origin": listed}).status_code == 403
    key = {"Origin": listed, "X-API-Key": TOKEN}
    assert client.post(path, headers=key).status_code == 404


def test_signing_out_ends_the_session_itself(signed_in, client):
    kept = dict(signed_in.cookies)
    reply = signed_in.post("/app/sign-out", headers=OWN)
    assert (reply.status_code, reply.headers["Location"]) == (303, SIGN_IN)
    assert "Max-Age=0" in reply.headers["Set-Cookie"]
    signed_in.cookies.update(kept)
    assert signed_in.get("/training/jobs").status_code == 401


def test_sessions_end_and_are_of_one_token(monkeypatch):
    sessions = Sessions(TOKEN, seconds=60)
    session = sessions.begin(TOKEN)
    cookie = f"a=b; {sessions.cookie}={session}".encode()
    assert sessions.find(cookie) == session
    assert Sessions(TOKEN).find(cookie) == session, "another server with this token takes it"
    assert Sessions("u" * 32).find(cookie) is None
    later = str(int(session[:10]) + 9)
    for forged in (later + session[10:], session[:-1] + "0" * (session[-1] != "0") + "1"):
        assert sessions.find(f"{sessions.cookie}={forged}".encode()) is None
    assert sessions.find(None) is None
    monkeypatch.setattr("time.time", lambda: float(session[:10]) + 1)
    assert sessions.find(cookie) is None


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.test", "//evil.test", "/\\evil.test", "/app//evil.test", "/train", "app", "",
     "/apple", "/app/\n", "javascript:x", "/app/../..//evil.test", "[", "/app/\u2028"],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(wanted):
    assert next_page(wanted) == HOME


def test_signing_in_leads_to_the_page_that_was_asked_for():
    for page in ("/app", "/app/compare?job=1&job=2", "/docs", "/app/models/a.b-c"):
        assert next_page(page) == page


def test_without_a_token_nobody_signs_in(open_client):
    reply = open_client.get(f"{SIGN_IN}?next=/app/models", headers=HTML, follow_redirects=False)
    assert reply.headers["Location"] == "/app/models"
    assert "sign-out" not in open_client.get(HOME, headers=HTML).text


# --- words


def test_every_language_has_the_same_keys_and_placeholders():
    first, *others = (messages(language) for language in LANGUAGES)
    for other in others:
        assert other.keys() == first.keys()
        for key, text in first.items():
            places = [set(re.findall(r"\{\w+\}", words)) for words in (text, other[key])]
            assert places[0] == places[1], key
            assert other[key].strip(), key


def sources() -> str:
    files = [*STATIC.glob("*.js"), *(FOLDER / "templates").glob("*.html")]
    return "\n".join(path.read_text() for path in files)


def test_every_key_is_used_and_every_used_key_is_there():
    text, keys = sources(), messages("en").keys()
    used = set(re.findall(r"""\bt\(\s*['"]([a-z_.]+)['"]""", text))
    assert used - keys == set()
    made = {pattern.replace("$", "") for pattern in re.findall(r"`([a-z_]+\.)\$\{", text)}
    quoted = set(re.findall(r"""['"]([a-z_]+\.[a-z_.]+)['"]""", text))
    unused = {
        key for key in keys
        if key.removesuffix(".one") not in used | quoted
        and not key.startswith((*made, "server."))  # those are chosen by their English
    }  # fmt: skip
    assert unused == set()


def test_what_the_server_says_is_known_to_the_letter():
    """Its sentences, and kinds of problems and warnings: what changed there changes here."""
    words = messages("en")
    said = {text for key, text in words.items() if key.startswith("server.")}
    constants = {*TEXTS.values(), OUT_OF_MEMORY}
    for path in (FOLDER.parent).rglob("*.py"):
        constants |= {
            node.value for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }  # fmt: skip
    assert said - constants == set()
    assert set(TEXTS.values()) - said == set()
    kinds = {f"problem.{row.kind}": f"{row.title}." for row in ERROR_TABLE.values()}
    assert kinds.items() - words.items() == set()
    warned = {f"warning.{kind}": text for kind, text in WARNINGS.items()}
    assert warned == {key: text for key, text in words.items() if key.startswith("warning.")}


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_the_help_of_every_field_is_in_every_language(language):
    help_ = json.loads((STATIC / f"fields.{language}.json").read_text())
    fields = TrainBody.model_json_schema()["properties"].values()
    assert help_.keys() == {field["description"] for field in fields}
    for english, text in help_.items():
        assert set(re.findall(r"`[^`]+`", english)) == set(re.findall(r"`[^`]+`", text)), english


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, "", "en"), (None, "ja", "ja"), (None, "ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        (None, "en;q=0.5, ja;q=0.4", "en"), (None, "fr,de", "en"), ("ja", "en", "ja"),
        ("xx", "ja", "ja"), (None, "ja;q=0", "en"), (None, ";;;,q=", "en"),
    ],
)  # fmt: skip
def test_the_language_is_the_users(chosen, accepted, language):
    assert choose_language(chosen, accepted) == language


def test_pages_come_in_the_language_and_theme_that_were_chosen(open_client):
    page = open_client.get(HOME, headers=HTML | {"Accept-Language": "ja"})
    assert '<html lang="ja">' in page.text
    assert "Accept-Language" in page.headers["Vary"]
    chosen = HTML | {"Cookie": "grpo_language=en; grpo_theme=dark", "Accept-Language": "ja"}
    assert '<html lang="en" data-theme="dark">' in open_client.get(HOME, headers=chosen).text
    odd = HTML | {"Cookie": 'grpo_theme=""><script>'}
    assert '<html lang="en">' in open_client.get(HOME, headers=odd).text


# --- what is loaded


def compressed(paths) -> int:
    return sum(len(gzip.compress(path.read_bytes(), 9)) for path in paths)


def test_pages_are_small():
    vendored = [*STATIC.glob("vendor/*.js"), *STATIC.glob("vendor/*.css")]
    assert compressed(vendored) < VENDORED_BYTES
    assert compressed([*STATIC.glob("*.js"), *STATIC.glob("*.css")]) < OUR_BYTES


def test_what_is_vendored_is_what_the_packages_hold():
    folder = STATIC / "vendor"
    vendor = json.loads((folder / "vendor.json").read_text())
    licences = {name for entry in vendor.values() for name in entry["licences"]}
    assert {path.name for path in folder.iterdir()} == {*vendor, *licences, "vendor.json"}
    for name, entry in vendor.items():
        content = (folder / name).read_bytes()
        appended = entry.get("appended", "").encode()
        assert content.endswith(appended), name
        content = content[: len(content) - len(appended)]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name


def test_modules_load_nothing_from_elsewhere():
    text = sources()
    assert not re.search(r"""(import|from|fetch\()\s*\(?['"`]https?:""", text)
    assert "innerHTML" not in text
    assert "eval(" not in text

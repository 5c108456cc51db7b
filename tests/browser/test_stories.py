"""Four people at their work, each in a browser of their own, on one platform with approvals on.

Each clicks and types as the person would; every page on the way must be usable without seeing it,
fit the screen, log no error and ask no other host for anything.
"""

import base64
import csv
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.site import CHROMIUM, PATIENCE_MS, Site
from tests.browser.test_admin_story import make_files
from tests.browser.town import AFTER, OPERATOR, STRANGERS, Town, make_person, town_with

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed; apt-get install chromium"),
]
Enter = Callable[[str], Site]
CHURN, PRICES, NEWCOMER = "churn", "prices", "nora"
# A moment in the form that a date-and-time field takes.
MOMENT = "%Y-%m-%dT%H:%M:%S"


@pytest.fixture(scope="module")
def town(browser: Browser) -> Iterator[Town]:
    with town_with(browser) as made:
        yield made


@pytest.fixture
def enter(town: Town, browser: Browser, tmp_path: Path) -> Iterator[Enter]:
    """Give what signs a person in, in a browser of their own."""
    make_files(tmp_path)
    contexts = []

    def signed_in(who: str) -> Site:
        context = browser.new_context(
            viewport={"width": 1440, "height": 900}, reduced_motion="reduce", timezone_id="UTC"
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=town.url)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        site = Site(town.url, tmp_path, context.new_page())
        site.watch()
        site.sign_in(who)
        return site

    yield signed_in
    for context in contexts:
        context.close()


def looked_at(site: Site) -> None:
    """Wait until the page is whole; it must be usable for everybody and quiet."""
    site.settle()
    assert site.hard_to_use() == []
    assert not site.is_wide()
    assert site.wrongs == []


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).first.click()


def follow(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).first.click()


def open_version(site: Site, model: str, number: int) -> None:
    site.go(f"/admin/registry/modelversion/?q={model}")
    follow(site.page, f"{model} {number}")
    site.page.wait_for_url("**/modelversion/*/change/**")


def open_endpoint(site: Site, model: str) -> None:
    site.go(f"/admin/registry/endpoint/?q={model}")
    site.page.locator("tbody tr", has_text="production").get_by_role("link").first.click()
    site.page.wait_for_url("**/endpoint/*/change/**")


def panel(page: Page, title: str) -> Any:
    """Return the part of the page below a heading."""
    heading = page.get_by_role("heading", name=title, exact=True)
    return page.locator("section", has=heading)


def find_by_keyboard(site: Site, words: str) -> None:
    """Open what Ctrl+K finds first, without the mouse."""
    site.page.keyboard.press("Control+k")
    expect(site.page.locator("#search-input-command")).to_be_focused()
    site.page.keyboard.type(words)
    found = site.page.locator("#command-results-list a")
    expect(found.first).to_contain_text(words)
    site.page.keyboard.press("ArrowDown")
    site.page.keyboard.press("Enter")


def copied(page: Page) -> str:
    words: str = page.evaluate("navigator.clipboard.readText()")
    return words


def run(program: str) -> str:
    """Run what a page printed, in a shell, as it stands."""
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- the data scientist ----------------------------------------------------------------------------


def drop(site: Site, file: str) -> None:
    """Let a file fall on the place for it, as from a folder on the desk."""
    taken = base64.b64encode((site.files / file).read_bytes()).decode()
    carried = site.page.evaluate_handle(
        """([name, text]) => {
            const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name));
            return carried;
        }""",
        [file, taken],
    )
    site.page.dispatch_event("#drop-zone", "drop", {"dataTransfer": carried})
    expect(site.page.locator("#file-words")).to_contain_text(file)


def keep_the_worker_busy(town: Town, files: Path) -> None:
    """Two slow validations stand in front, so that the next one is not over at once."""
    for name in ("busy-one", "busy-two"):
        content = (files / "flowers.joblib").read_bytes()
        town.send(OPERATOR, name, content, team=STRANGERS, name="flowers.joblib")


def uploads_and_reloads(site: Site, town: Town) -> None:
    site.go("/admin/registry/modelversion/add/")
    looked_at(site)
    keep_the_worker_busy(town, site.files)
    drop(site, "first.onnx")
    site.page.get_by_label("Model", exact=True).fill(CHURN)
    press(site.page, "Upload file")
    site.sees("The file is stored.")
    stages = site.page.get_by_role("list", name="Stages of the validation")
    expect(stages).to_be_visible()
    site.page.reload()
    expect(stages).to_be_visible()
    expect(stages.locator("[aria-current=step]")).to_have_count(1)
    site.page.wait_for_url("**/registry/modelversion/*/change/")
    expect(panel(site.page, "Is it right?")).to_contain_text("The model answers a trial run")
    looked_at(site)


def tries_it(site: Site) -> None:
    page = site.page
    numbers = page.get_by_label("x", exact=True)
    numbers.fill("1, two, 3, 4")
    numbers.press("Enter")
    expect(page.locator("#try-f0-error")).to_contain_text("Write numbers by comma")
    expect(page.locator("#try-answer")).to_contain_text("Fill in the marked fields.")
    numbers.fill("1, 2, 3, 4")
    numbers.press("Enter")
    answer = page.locator("#try-answer")
    expect(answer.get_by_role("heading", name="Answer")).to_be_visible()
    expect(page.locator("#try-f0-error")).to_be_empty()
    expect(answer).to_contain_text("9")

    page.get_by_text("Whole request as JSON").click()
    body = page.get_by_label("Request body")
    body.fill('{"instances": [[1, 2, 3, 4], [1, 2, 3]]}')
    press(page, "Try version 1")
    expect(answer.get_by_role("alert")).to_be_visible()
    body.fill('{"instances": [[1, 2, 3, 4], [0, 0, 0, 0]]}')
    press(page, "Try version 1")
    expect(answer.locator("tbody tr")).to_have_count(2)
    looked_at(site)


def copies_the_curl(site: Site) -> None:
    part = site.page.locator("#try-answer details", has_text="This question as curl")
    part.locator("summary").click()
    part.get_by_role("button", name="Copy snippet").click()
    site.sees("Copied.")
    text = copied(site.page)
    assert text.startswith("curl ")
    assert f"{site.url}/api/v1/predict/{CHURN}" in text


def releases_to_staging(site: Site) -> None:
    page = site.page
    follow(page, "Release version")
    page.get_by_label("Environment").select_option("staging")
    expect(page.get_by_role("button", name="Release to staging")).to_be_visible()
    expect(page.get_by_role("list", name="Checks")).to_contain_text("Validated")
    page.get_by_label("Reason").fill("The first of its kind")
    looked_at(site)
    press(page, "Release to staging")
    page.wait_for_url("**/registry/release/*/change/")
    site.sees("; done after ")
    looked_at(site)


def asks_for_production(site: Site) -> None:
    page = site.page
    open_version(site, CHURN, 1)
    site.sees("Live in staging")
    follow(page, "Release version")
    page.get_by_label("Reason").fill("Good in staging")
    press(page, "Ask for release to production")
    page.wait_for_url("**/registry/release/*/change/")
    site.sees("awaiting approval")
    site.sees("You asked for it, so another person decides: tom")
    expect(page.get_by_role("button", name="Approve release")).to_have_count(0)
    looked_at(site)


def test_a_data_scientist_brings_a_file_to_staging_and_asks_for_production(
    town: Town, enter: Enter
) -> None:
    site = enter("sonja")
    looked_at(site)
    uploads_and_reloads(site, town)
    tries_it(site)
    copies_the_curl(site)
    releases_to_staging(site)
    asks_for_production(site)
    find_by_keyboard(site, CHURN)
    site.page.wait_for_url("**/registry/registeredmodel/*/change/")
    site.sees("Version 1")
    looked_at(site)


# -- the approver ----------------------------------------------------------------------------------


def approves_from_the_bell(site: Site) -> None:
    page = site.page
    bell = page.get_by_role("button", name=re.compile("Notifications, .* unread"))
    bell.focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name=re.compile(f"Approval wanted: {PRICES} to production")).click()
    page.wait_for_url("**/registry/release/*/change/")
    site.sees("sonja asks:")
    expect(panel(page, "What changes")).to_contain_text("version 1")
    expect(page.get_by_role("list", name="Checks")).to_contain_text("Who decides.")
    looked_at(site)
    decide(site, "Looks right to me")


def decide(site: Site, reason: str) -> None:
    """Approve the release whose page is open and follow it until all workers have it."""
    site.page.get_by_label("Reason").fill(reason)
    press(site.page, "Approve release")
    site.sees("; done after ")
    expect(site.page.get_by_role("list", name="Workers").locator("li").first).to_be_visible()
    looked_at(site)


def sees_who_and_why(site: Site) -> None:
    open_endpoint(site, PRICES)
    now = panel(site.page, "What serves now")
    for words in ("Version 1", "Released by", "sonja", "Approved by", "tom", "Needed for autumn"):
        expect(now).to_contain_text(words)
    expect(panel(site.page, "Releases")).to_contain_text("tom: “Looks right to me”")
    looked_at(site)


def asks_for_a_canary(site: Site) -> None:
    """The data scientist wants a fifth of the traffic for the next version."""
    page = site.page
    open_version(site, PRICES, 2)
    follow(page, "Release version")
    page.get_by_label("Share of the traffic, %").fill("20")
    expect(page.locator("#preview")).to_contain_text("Moves 20 % of the traffic")
    page.get_by_label("Reason").fill("A better shift, carefully")
    looked_at(site)
    press(page, "Ask for release to production")
    page.wait_for_url("**/registry/release/*/change/")


def approves_from_home(site: Site) -> None:
    site.go("/admin/")
    looked_at(site)
    needs = panel(site.page, "Needs you")
    needs.get_by_role("link", name=f"Release 2 of {PRICES} to production").click()
    page = site.page
    page.wait_for_url("**/registry/release/*/change/")
    expect(panel(page, "What changes")).to_contain_text("20 %")
    decide(site, "A fifth is little")
    open_endpoint(site, PRICES)
    now = panel(page, "What serves now")
    expect(now).to_contain_text("80 %")
    expect(now).to_contain_text("20 %")
    looked_at(site)


def rolls_back(site: Site) -> None:
    page = site.page
    follow(page, "Roll back to release 1")
    site.sees("Moves 20 % of the traffic from version 2 to version 1.")
    page.get_by_label("Reason").fill("Its errors went up")
    looked_at(site)
    press(page, "Roll back to release 1")
    page.wait_for_url(re.compile(r"/registry/(endpoint|release)/\d+/change/"))
    site.sees("Release 3 serves what release 1 served.")
    looked_at(site)


def travels_back(site: Site, moment: datetime) -> None:
    open_endpoint(site, PRICES)
    expect(panel(site.page, "What serves now")).to_contain_text("Release 3")
    then = panel(site.page, "What served at …")
    then.get_by_label("Moment, UTC").fill(moment.strftime(MOMENT))
    then.get_by_role("button", name="Show what served").click()
    site.page.wait_for_url("**at=**")
    expect(then).to_contain_text("release 2 served.")
    for words in ("20 %", "sonja", "tom", "A better shift, carefully"):
        expect(then).to_contain_text(words)
    looked_at(site)


def test_an_approver_approves_watches_rolls_back_and_sees_what_served_before(
    town: Town, enter: Enter
) -> None:
    number = town.upload("sonja", PRICES, 1)
    town.ask_for_release("sonja", PRICES, number, "Needed for autumn")
    tom = enter("tom")
    approves_from_the_bell(tom)
    sees_who_and_why(tom)
    town.upload("sonja", PRICES, 2)
    asks_for_a_canary(enter("sonja"))
    approves_from_home(tom)
    tom.page.wait_for_timeout(1100)  # the time machine's field knows whole seconds
    moment = datetime.now(UTC)
    rolls_back(tom)
    travels_back(tom, moment)


# -- the analyst -----------------------------------------------------------------------------------


def sees_her_models(site: Site) -> None:
    site.go("/admin/registry/registeredmodel/")
    expect(site.page.get_by_role("link", name="wine", exact=True)).to_be_visible()
    expect(site.page.get_by_text("hidden", exact=True)).to_have_count(0)
    looked_at(site)


def sees_traffic(site: Site, town: Town) -> None:
    page = site.page
    site.go("/admin/inference-pages/traffic/")
    looked_at(site)
    follow(page, "Last hour")
    page.wait_for_url("**range=hour**")
    page.get_by_label("Model", exact=True).fill("wine")
    page.get_by_label("From (UTC)").fill(town.split.strftime("%Y-%m-%dT%H:%M"))
    ends = datetime.now(UTC) + timedelta(minutes=1)
    page.get_by_label("To (UTC)").fill(ends.strftime("%Y-%m-%dT%H:%M"))
    page.get_by_label("To (UTC)").press("Enter")
    page.wait_for_url("**model=wine**")
    expect(page.get_by_role("link", name="Take away the filter model: wine")).to_be_visible()
    requests = page.locator(".mp-kpi", has_text="Requests").first
    expect(requests).to_contain_text(re.compile(r"\+[\d,]+ % against the period before"))
    looked_at(site)
    seen = int(requests.locator(".mp-kpi-value").inner_text().replace(",", ""))
    assert seen >= AFTER
    with page.expect_download() as started:
        follow(page, "Download CSV")
    with Path(started.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {"wine"}
    assert sum(int(row["requests"]) for row in rows) >= seen  # a call may have come meanwhile


def reads_a_prediction(site: Site) -> None:
    page = site.page
    site.go("/admin/inference/prediction/")
    follow(page, "any error")
    page.wait_for_url("**status=**")
    expect(page.locator("tbody tr a").first).to_be_visible()
    looked_at(site)
    page.get_by_label("Model", exact=True).fill("wine")
    page.get_by_label("Model", exact=True).press("Enter")
    page.wait_for_url("**model=wine**")
    follow(page, "ok")
    page.wait_for_url("**status=ok**")
    page.locator("tbody tr a").first.click()
    page.wait_for_url("**/prediction/*/change/**")
    stages = page.get_by_role("list", name="Time by stage").locator("li")
    expect(stages.first).to_be_visible()
    assert stages.count() >= 2
    expect(panel(page, "Answer")).to_be_visible()
    looked_at(site)


VERBS = re.compile(
    r"^(Release version|Upload|Roll back|Deprecate|Archive|Make key|Add to team|Save)\b"
)


def finds_nothing_to_change(site: Site, town: Town) -> None:
    """A viewer's pages have no button that changes something, and the doors behind are shut."""
    page = site.page
    visits: tuple[Callable[[], None], ...] = (
        lambda: open_version(site, "wine", 1),
        lambda: open_endpoint(site, "wine"),
        lambda: site.go("/admin/registry/modelversion/"),
        lambda: site.go("/admin/accounts/apikey/"),
        lambda: site.go("/admin/accounts/team/"),
    )
    for open_it in visits:
        open_it()
        looked_at(site)
        found = page.get_by_role("link", name=VERBS).or_(page.get_by_role("button", name=VERBS))
        assert found.all_inner_texts() == []
    for path in ("registry/modelversion/add/", "accounts/apikey/add/", "core/event/"):
        assert page.request.get(f"{town.url}/admin/{path}").status == 403


def cannot_see_strangers(site: Site, town: Town, paths: list[str]) -> None:
    """What is another team's looks like what is not there."""
    for path in paths:
        reply = site.page.request.get(f"{town.url}{path}", max_redirects=0)
        assert reply.status == 404, f"{path}: {reply.status}"


def addresses_of_strangers(site: Site) -> list[str]:
    """Read the addresses off the operator's pages."""
    page = site.page
    open_version(site, "hidden", 1)
    version = page.url.removeprefix(site.url).split("?")[0]
    follow(page, "hidden")
    page.wait_for_url("**/registeredmodel/*/change/**")
    model = page.url.removeprefix(site.url).split("?")[0]
    site.go(f"/admin/accounts/team/?q={STRANGERS}")
    page.locator("tbody tr", has_text="Strangers").get_by_role("link").first.click()
    page.wait_for_url("**/team/*/change/**")
    team = page.url.removeprefix(site.url).split("?")[0]
    return [
        version,
        version.replace("/change/", "/release/"),
        model,
        team,
        "/admin/inference-pages/traffic/model/hidden/",
        "/admin/inference-pages/try/hidden/1/",
        "/admin/inference-pages/predictions/hidden/",
        "/admin/registry-pages/uploads/hidden/1/progress/",
    ]


def test_an_analyst_reads_traffic_and_predictions_of_her_team_and_changes_nothing(
    town: Town, enter: Enter
) -> None:
    theirs = addresses_of_strangers(enter(OPERATOR))
    ana = enter("ana")
    looked_at(ana)
    ana.until_a_row("/admin/inference/prediction/?status=ok")
    sees_her_models(ana)
    sees_traffic(ana, town)
    reads_a_prediction(ana)
    finds_nothing_to_change(ana, town)
    cannot_see_strangers(ana, town, theirs)


# -- the operator ----------------------------------------------------------------------------------


def makes_a_key(site: Site) -> None:
    page = site.page
    site.go("/admin/accounts/apikey/add/")
    page.get_by_label("Name", exact=True).fill("shop checkout")
    page.get_by_label("Team", exact=True).select_option(label="Demo")
    page.get_by_role("button", name="wine", exact=True).click()
    looked_at(site)
    press(page, "Make key")
    secret = page.locator("#issued-key").inner_text().strip()
    page.locator("#issued-curl").get_by_role("button", name="Copy curl").click()
    site.sees("Copied.")
    looked_at(site)
    assert secret in copied(page)
    runs_as_printed(site, copied(page))
    follow(page, "I have stored it")
    page.wait_for_url("**/accounts/apikey/*/change/")
    assert secret not in page.content()
    looked_at(site)
    site.confirm("Revoke key", "The shop was closed")
    expect(page.locator(".mp-head h1")).to_contain_text("revoked")
    expect(panel(page, "History")).to_contain_text("The shop was closed")
    looked_at(site)


def runs_as_printed(site: Site, program: str) -> None:
    """The nodes hear of a new key within a moment; until then they refuse it."""
    while '"predictions"' not in run(program):  # the suite's own timeout ends it
        site.page.wait_for_timeout(300)


def adds_a_member(site: Site) -> None:
    page = site.page
    make_person(site, NEWCOMER)
    looked_at(site)
    site.go(f"/admin/accounts/team/?q={STRANGERS}")
    page.locator("tbody tr", has_text="Strangers").get_by_role("link").first.click()
    page.get_by_label("Add a person").fill(NEWCOMER)
    page.get_by_label("Role", exact=True).select_option("contributor")
    press(page, "Add to team")
    member = panel(page, "Members").locator("tr", has_text=NEWCOMER)
    expect(member.get_by_label(f"Role of {NEWCOMER}")).to_have_value("contributor")
    looked_at(site)


def reads_the_record(site: Site) -> None:
    page = site.page
    site.go("/admin/core/event/")
    chain = page.get_by_role("region", name="Audit chain")
    chain.get_by_role("button", name="Verify now").click()
    expect(chain).to_contain_text("verified", timeout=PATIENCE_MS)
    expect(chain.get_by_role("button", name="Verify now")).to_be_enabled(timeout=PATIENCE_MS)
    looked_at(site)
    page.get_by_label("Who", exact=True).fill("admin")
    page.get_by_label("Who", exact=True).press("Enter")
    page.wait_for_url("**who=admin**")
    follow(page, "Members")
    looked_at(site)
    expect(page.locator("tbody", has_text=NEWCOMER).first).to_be_visible()
    with page.expect_download() as started:
        follow(page, "Export CSV")
    with Path(started.value.path()).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["Who"] for row in rows} == {"admin"}
    assert any(NEWCOMER in row["What"] + row["Facts"] + row["Thing"] for row in rows)


def walks_through_operations(site: Site) -> None:
    page = site.page
    site.go("/admin/core/work/")
    looked_at(site)
    page.locator("tbody tr a").first.click()
    page.wait_for_url("**/work/*/change/**")
    looked_at(site)
    for path in ("/admin/monitoring/notifications", f"/admin/accounts/user/?q={NEWCOMER}"):
        site.go(path)
        looked_at(site)
    page.locator("tbody tr a", has_text=NEWCOMER).first.click()
    page.wait_for_url("**/user/*/change/**")
    expect(panel(page, "Teams and roles")).to_contain_text("Strangers")
    looked_at(site)


def test_an_operator_gives_keys_and_roles_and_reads_the_record(town: Town, enter: Enter) -> None:
    site = enter(OPERATOR)
    expect(panel(site.page, "Needs you")).to_be_visible()
    expect(site.page.get_by_role("region", name="Now")).to_contain_text("Models live")
    looked_at(site)
    makes_a_key(site)
    adds_a_member(site)
    reads_the_record(site)
    walks_through_operations(site)


# -- every kind of model ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["digits", "tumour", "progression"])
def test_an_image_model_and_models_of_pytorch_are_tried_on_their_pages(
    enter: Enter, model: str
) -> None:
    site = enter("sonja")
    open_version(site, model, 1)
    press(site.page, "Try version 1")
    answer = site.page.locator("#try-answer")
    expect(answer.get_by_role("heading", name="Answer")).to_be_visible(timeout=PATIENCE_MS)
    expect(answer.get_by_role("list", name="Time by stage")).to_be_visible()
    looked_at(site)

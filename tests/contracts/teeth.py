"""Does the table notice when a permission is no longer checked?

Every check of the platform goes through ``policies``. Here each is taken away, one at a time: each
place that asks (``require`` and ``may``, as the sources have them), and each part of each rule. The
rows that were refused there are called again; a change that no row notices is a gap of the table.
"""

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from django.db import transaction

from apps.accounts import policies
from apps.accounts.callers import Caller
from apps.accounts.policies import RULES, Action, Rule, Who
from apps.accounts.snapshot import Role
from tests.contracts import access, admin_access, admin_rows
from tests.contracts.access import World

ROOT = Path(__file__).resolve().parents[2]
ASKING = frozenset({"may", "require"})
Refusal = Callable[..., Any]


@dataclass(frozen=True, order=True)
class Site:
    """A place in the sources that asks for a permission."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file}:{self.first}"


@dataclass(frozen=True)
class Cell:
    """One caller at one row of either table."""

    table: str
    row: int
    caller: str


@dataclass
class Seen:
    """Which cells were refused, by the place that asked and by the action asked about."""

    by_line: dict[tuple[str, int], set[Cell]] = field(default_factory=dict)
    by_action: dict[Action, set[Cell]] = field(default_factory=dict)

    def at(self, site: Site) -> set[Cell]:
        lines = range(site.first, site.last + 1)
        return set().union(*(self.by_line.get((site.file, line), set()) for line in lines))


def sites() -> Iterator[Site]:
    """Return every call of ``may`` and ``require`` outside of ``policies`` itself."""
    for path in sorted((ROOT / "apps").rglob("*.py")):
        file = str(path.relative_to(ROOT))
        source = path.read_text()
        if "accounts.policies" not in source and "import policies" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and _name(node.func) in ASKING:
                yield Site(file, node.lineno, node.end_lineno or node.lineno)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        is_ours = isinstance(node.value, ast.Name) and node.value.id == "policies"
        return node.attr if is_ours else ""
    return node.id if isinstance(node, ast.Name) else ""


class Tables:
    """Both tables over one world, which every call leaves as it was."""

    def __init__(self) -> None:
        self.rows: Mapping[str, list[Any]] = {
            "api": access.all_rows(),
            "admin": list(admin_rows.ROWS),
        }
        self.world = World.make()

    def cells(self, table: str) -> Iterator[Cell]:
        callers = access.CALLERS if table == "api" else admin_access.CALLERS
        for number in range(len(self.rows[table])):
            for caller in callers:
                yield Cell(table, number, caller)

    @contextmanager
    def settled(self, table: str) -> Iterator[None]:
        """Make what the admin's rows need, for a while; a row of the API makes its own."""
        with transaction.atomic():
            if table == "admin":
                admin_access.settle(self.world)
                self.clients = admin_access.clients_of(self.world)
            yield
            self.world.things.clear()
            transaction.set_rollback(True)

    def is_true(self, cell: Cell) -> bool:
        """Whether a cell is as its table says."""
        row = self.rows[cell.table][cell.row]
        if cell.table == "admin":
            found, marks = admin_access.seen(self.clients[cell.caller], row, self.world)
            wanted = {one for one, whose in row.marks.items() if cell.caller in whose.split()}
            return found == row.statuses[cell.caller] and marks == wanted
        with transaction.atomic():
            if row.prepare is not None:
                row.prepare(self.world)
            status = access.status_of(cell.caller, row, self.world)
            self.world.things.clear()
            transaction.set_rollback(True)
        return bool(status == row.statuses[cell.caller])


def watched(tables: Tables, table: str, seen: Seen) -> list[Cell]:
    """Call a whole table, note who was refused where; return the cells that were not true."""
    usual = policies._refusal
    now: list[Cell] = []

    def noting(caller: Any, action: Action, thing: Any) -> Any:
        refusal = usual(caller, action, thing)
        if refusal is not None and now:
            frame = sys._getframe(2)
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(ROOT):
                place = (str(file.relative_to(ROOT)), frame.f_lineno)
                seen.by_line.setdefault(place, set()).add(now[0])
            seen.by_action.setdefault(action, set()).add(now[0])
        return refusal

    untrue = []
    with mock.patch.object(policies, "_refusal", noting), tables.settled(table):
        for cell in tables.cells(table):
            now[:] = [cell]
            if not tables.is_true(cell):
                untrue.append(cell)
    return untrue


@contextmanager
def without_site(site: Site) -> Iterator[None]:
    """Have one place in the sources let everybody through."""
    usual = policies._refusal

    def blind(caller: Any, action: Action, thing: Any) -> Any:
        frame = sys._getframe(2)
        is_here = frame.f_code.co_filename == str(ROOT / site.file)
        if is_here and site.first <= frame.f_lineno <= site.last:
            return None
        return usual(caller, action, thing)

    with mock.patch.object(policies, "_refusal", blind):
        yield


@contextmanager
def without_walls() -> Iterator[None]:
    """Have every team exist for everybody."""
    with mock.patch.object(Caller, "sees", return_value=True):
        yield


@contextmanager
def with_rule(action: Action, rule: Rule) -> Iterator[None]:
    """Have one action decided by another rule."""
    with mock.patch.object(policies, "RULES", {**RULES, action: rule}):
        yield


def weaker(action: Action) -> Iterator[tuple[str, Rule]]:
    """Return the rules of an action with one part taken away, and what that part was."""
    rule = RULES[action]
    # Whoever is in a team is a viewer at the least: there the wall between teams decides.
    if rule.who not in {Who.ANYONE, Role.VIEWER}:
        yield f"{action}: the role {rule.who}", replace(rule, who=Who.ANYONE)
    if rule.scope is not Who.ANYONE:
        yield f"{action}: the scope {rule.scope}", replace(rule, scope=Who.ANYONE)
    if rule.production is not None:
        yield f"{action}: {rule.production} in production", replace(rule, production=None)


# Places and parts of rules that the rows cannot notice, and what does instead.
EXCUSED: Mapping[str, str] = {
    "apps/accounts/api/audit.py": "asked twice: `audited_teams` refuses as well",
    "apps/accounts/api/keys.py": "which keys a list holds: tests/apps/accounts/test_doors.py",
    "apps/accounts/api/plans.py": "plans are read by everybody who is known",
    "apps/accounts/api/sessions.py": "everybody who is known reads her own",
    "apps/accounts/services/invitations.py": "who left: tests/apps/accounts/test_invitations.py",
    "apps/inference/api/privacy.py": "which team is meant; its `_require` asks again",
    "apps/accounts/admin/": "what a form offers; the service asks again",
    "apps/inference/admin.py": "a row is found among those of one's own teams first",
    "apps/inference/api/door.py": "what a call counts as: tests/apps/inference/test_door.py",
    "apps/inference/pages/traffic.py": "counts in cells: tests/apps/inference/test_pages.py",
    "apps/inference/selectors.py": "a key's scope is asked at the door before",
    "apps/inference/traffic.py": "a key's scope is asked at the door before",
    "apps/monitoring/home.py": "what Home shows: tests/apps/monitoring/test_home.py",
    "apps/monitoring/palette.py": "`keys_of` and the pages ask as well",
    "apps/monitoring/rules.py": "who is told: tests/apps/monitoring/test_news.py",
    "apps/registry/admin/": "what a page offers; the action asks again",
    "apps/registry/api/upload.py": "code in a file: tests/apps/registry/test_upload_door.py",
    "apps/registry/services/preview.py": "a preview in words; making the release asks again",
    "version.upload_code": "code in a file: tests/apps/registry/test_upload_door.py",
    "prediction.read_redacted: the scope": "reading the prediction needs the same scope",
    "plan.write: the scope": "no admin's key is in the rows: tests/apps/accounts/test_plans.py",
    # No door asks about these yet.
    "batch.write": "no door yet",
    "feedback.write": "no door yet",
    "experiment.": "no door yet",
}


def excuse(what: str) -> str:
    """Return why the rows need not notice a change; empty when they must."""
    return next((why for name, why in EXCUSED.items() if what.startswith(name)), "")


def notices(tables: Tables, cells: set[Cell]) -> Cell | None:
    """Return the first of the cells that is no longer true, if one is."""
    for table in ("api", "admin"):
        mine = sorted((one for one in cells if one.table == table), key=lambda one: one.row)
        if not mine:
            continue
        with tables.settled(table):
            for cell in mine:
                if not tables.is_true(cell):
                    return cell
    return None

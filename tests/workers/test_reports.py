"""Reports: files that no spreadsheet runs, kept and removed, sent by a signed webhook and by a real mail server."""

import csv
import email
import email.policy
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from openpyxl import load_workbook

from endcap.errors import InvalidInput
from endcap.events import Action, Event
from endcap.jobs import load_jobs
from endcap.settings import Settings, load_settings
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.flags import Flags, Suspicion
from endcap.stores.reports import Kept, Reports, UnknownReport
from endcap.stores.runs import Runs
from endcap_workers.fraud.watch import watch
from endcap_workers.reports.delivery import deliver, signature
from endcap_workers.reports.fraud import fraud_report
from endcap_workers.reports.html import render_html
from endcap_workers.reports.making import make_report, write_files
from endcap_workers.reports.model import Chart, Column, Report, Table, Tile
from endcap_workers.reports.sheets import safe_text
from endcap_workers.tasks.fraud import JOB

NOW = 1_790_000_000.0
EVIL = [
    '=HYPERLINK("http://evil")',
    "+1",
    "-1+2",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "|calc",
    "＝1",
    "<script>alert(1)</script>",
    "Tea; =1+1",
    "Tea\n@SUM(A1)",
    "\uffffcup\ufffe",
]


def report() -> Report:
    columns = [Column("title", "=Title"), Column("units", "Units", "number"), Column("when", "When", "time")]
    rows = [{"id": f"-p{n}", "title": text, "units": -5.0, "when": NOW} for n, text in enumerate(EVIL)]
    rows.append({"id": "x", "title": "plain", "units": float("nan"), "when": None})
    chart = Chart("lines", "Units <b>", ["a", "b", "c"], [("sold", [1.0, None, 3.0])])
    return Report("inventory", "Demand", "A line", NOW, "Europe/Berlin", "€", [Tile("Units", "5")], [chart],
                  [Table("demand", "What: [sells]/now", columns, rows)], ["a note"])  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    write_files(report(), folder)
    return folder


def test_no_cell_of_a_csv_file_is_run_by_a_spreadsheet(files: Path) -> None:
    with (files / "demand.csv").open(encoding="utf-8-sig", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["Id", "'=Title", "Units", "When"]
    starters = ("=", "+", "-", "@", "\t", "|", "＝")
    for row in rows:
        assert not row[0].startswith(starters)
        assert not row[1].lstrip(" ").startswith(starters)
    assert rows[0][2] == "-5.0", "a number stays one"
    assert rows[-1] == ["x", "plain", "", ""]
    assert safe_text("a = b") == "a = b"
    for line in (files / "demand.csv").read_text(encoding="utf-8-sig").splitlines():
        # As read where the semicolon is between two cells.
        assert not any(part.strip(' "').startswith(starters) for part in line.split(";"))


def test_the_workbook_holds_text_and_numbers_and_no_formula(files: Path) -> None:
    book = load_workbook(files / "report.xlsx")
    sheet = book["What sellsnow"]
    kinds = {cell.data_type for row in sheet.iter_rows() for cell in row if cell.value is not None}
    assert "f" not in kinds
    assert sheet["C2"].value == -5.0
    assert sheet["D2"].is_date
    assert [row[1].value for row in sheet.iter_rows()][-2:] == ["cup", "plain"], "what XML cannot hold is left out"
    assert book.sheetnames[0] == "Overview"


def test_the_page_needs_nothing_else_and_runs_nothing(files: Path) -> None:
    page = (files / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://evil", "").replace("http://www.w3.org", "")
    assert "<polyline" in page or "<circle" in page
    assert "@media print" in page
    assert "Europe/Berlin" in page


def test_json_gives_the_same_report_back(files: Path) -> None:
    again = Report.from_json(orjson.loads((files / "report.json").read_bytes()))
    assert render_html(again) == render_html(report())


def test_only_the_newest_reports_stay(database: Database, tmp_path: Path) -> None:
    store = Reports(database, tmp_path)
    for number in range(5):
        name, folder = store.new_folder("fraud", NOW + number)
        (folder / "report.html").write_text("x")
        store.keep(Kept(name, "fraud", "daily", "Fraud", "", NOW + number, {"tiles": []}), most=3)
    found = store.list("fraud")
    assert [one.made - NOW for one in found] == [4, 3, 2]
    assert len(list((tmp_path / "reports").iterdir())) == 3
    assert store.get("fraud").id == found[0].id
    assert store.file(found[0], "report.html").read_text() == "x"
    for wrong in ("report.json", "../endcap.sqlite", "..", "/etc/passwd", "a/b.csv", "none.csv"):
        with pytest.raises(UnknownReport):
            store.file(found[0], wrong)
    for wrong in ("inventory", "nothing"):
        with pytest.raises(UnknownReport):
            store.get(wrong)


class Receiver(BaseHTTPRequestHandler):
    """Fails twice, then takes it."""

    seen: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012
    failures = 2

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen.append((dict(self.headers), body))
        self.send_response(503 if len(type(self).seen) <= type(self).failures else 204)
        self.end_headers()

    def log_message(self, *given: Any) -> None:
        pass


def test_the_webhook_is_signed_and_tried_again(tmp_path: Path) -> None:
    Receiver.seen, server = [], HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    settings = load_settings(data_dir=tmp_path, report_webhook=url, report_webhook_secret="secret")
    waits: list[float] = []
    try:
        assert deliver(report(), "r-1", {}, settings, waits.append) == {"webhook": "sent"}
    finally:
        server.shutdown()
        server.server_close()
    assert waits == [2.0, 4.0]
    headers, body = Receiver.seen[-1]
    assert headers["X-Endcap-Signature"] == signature("secret", headers["X-Endcap-Timestamp"], body)
    assert signature("other", headers["X-Endcap-Timestamp"], body) != headers["X-Endcap-Signature"]
    assert orjson.loads(body)["tables"] == [{"name": "demand", "title": "What: [sells]/now", "rows": len(EVIL) + 1}]


def test_what_a_webhook_says_is_not_waited_for(tmp_path: Path) -> None:
    over = threading.Event()

    class Talker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000000")
            self.end_headers()
            self.wfile.write(b"so ")
            over.wait(60)

        def log_message(self, *given: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Talker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = load_settings(data_dir=tmp_path, report_webhook=f"http://127.0.0.1:{server.server_port}/")
    try:
        assert deliver(report(), "r-1", {}, settings, lambda seconds: over.set()) == {"webhook": "sent"}
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def test_a_receiver_that_stays_away_is_told_of_and_harms_nothing(tmp_path: Path) -> None:
    settings = load_settings(
        data_dir=tmp_path, report_webhook="http://127.0.0.1:9/x", report_recipients=["a@example.org"],
        smtp_url="smtp://127.0.0.1:9",
    )  # fmt: skip
    told = deliver(report(), "r-1", {}, settings, lambda seconds: None)
    assert "cannot be reached" in told["webhook"]
    assert "mail server" in told["e-mail"]
    nowhere = load_settings(data_dir=tmp_path, report_recipients=["a@example.org"])
    assert "smtp_url must be" in deliver(report(), "r-1", {}, nowhere)["e-mail"]


class Mailbox:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(envelope)
        return "250 OK"


class MailServer(Controller):
    """On whatever port is free when it begins to listen."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def test_the_report_comes_by_mail(tmp_path: Path, files: Path) -> None:
    box = Mailbox()
    controller = MailServer(box, hostname="127.0.0.1", port=0, ready_timeout=60)
    controller.start()
    port = controller.port
    settings = load_settings(
        data_dir=tmp_path, report_recipients=["ann@example.org", "bob@example.org"],
        smtp_url=f"smtp://127.0.0.1:{port}", smtp_from="endcap@example.org",
    )  # fmt: skip
    try:
        told = deliver(report(), "r-1", {"report.xlsx": files / "report.xlsx"}, settings)
    finally:
        controller.stop()
    assert told == {"e-mail": "sent"}
    envelope = box.messages[0]
    assert envelope.rcpt_tos == ["ann@example.org", "bob@example.org"]
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert message["Subject"] == "Demand: A line"
    names = [part.get_filename() for part in message.iter_attachments()]
    assert names == ["inventory.html", "inventory.xlsx"]


def test_a_password_is_not_sent_where_everyone_could_read_it(tmp_path: Path) -> None:
    told: list[Any] = []

    def take(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        told.append(data)
        return AuthResult(success=True)

    # Another address than those that are known to be this machine, as a server elsewhere has.
    controller = MailServer(
        Mailbox(), hostname="127.0.0.2", port=0, ready_timeout=60, auth_require_tls=False, authenticator=take
    )
    controller.start()
    url = f"smtp://ann:secret@127.0.0.2:{controller.port}"
    settings = load_settings(data_dir=tmp_path, report_recipients=["a@example.org"], smtp_url=url)
    try:
        assert "offers no STARTTLS" in deliver(report(), "r-1", {}, settings)["e-mail"]
    finally:
        controller.stop()
    assert told == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_password_that_cannot_be_sent_loses_no_report(tmp_path: Path) -> None:
    controller = MailServer(
        Mailbox(), hostname="127.0.0.1", port=0, ready_timeout=60, auth_require_tls=False, auth_required=True,
        authenticator=lambda *given: AuthResult(success=True),
    )  # fmt: skip
    controller.start()
    url = f"smtp://ann:p%C3%A4ss@127.0.0.1:{controller.port}"
    settings = load_settings(data_dir=tmp_path, report_recipients=["a@example.org"], smtp_url=url)
    try:
        assert "refused" in deliver(report(), "r-1", {}, settings, lambda seconds: None)["e-mail"]
    finally:
        controller.stop()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"smtp_url": "smtp://mail.example.org:99999"}, "smtp_url must be"),
        ({"smtp_url": "smtp://mail.example.org:port"}, "smtp_url must be"),
        ({"smtp_url": "smtp://[mail"}, "smtp_url must be"),
        ({"smtp_from": "ann@example.org\nBcc: all@example.org"}, "e-mail addresses"),
        ({"report_recipients": ["ann\nbob@example.org"]}, "e-mail addresses"),
    ],
)
def test_settings_of_mail_that_cannot_be_lose_no_report(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    mail = {"report_recipients": ["a@example.org"], "smtp_url": "smtp://127.0.0.1:9"}
    settings = load_settings(data_dir=tmp_path, **{**mail, **wrong})
    assert says in deliver(report(), "r-1", {}, settings, lambda seconds: None)["e-mail"]


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Settings:
    now = time.time()
    EventLog(database).append(
        [
            Event(f"e{n}", now - 86_400.0 * (1 + n % 60), f"ann{n % 20}", Action.PURCHASE, f"p{n % 5}",
                  quantity=500.0 if n == 7 else 1.0, value=3.0)
            for n in range(600)
        ]
    )  # fmt: skip
    flags = Flags(database)
    flags.suspect([Suspicion("shopper", "ann1", 0.97, ["400 events within a minute"], {"actions": 30})], "fraud")
    flags.suspect([Suspicion("product", "p1", 0.6, ["9 of 20"])], "fraud")
    flags.suspect([Suspicion("shopper", "ann2", 0.9, ["odd"])], "fraud")
    flags.decide(flags.queue(contains="ann2")[0].id, "dismissed", "eve")
    return load_settings(data_dir=tmp_path, text_encoder="none")


def test_the_fraud_report_tells_flags_decisions_and_strange_purchases(database: Database, filled: Settings) -> None:
    found = fraud_report(database, filled, {"p1": "Tea"}, {})
    assert [row["id"] for row in found.table("shoppers").rows] == ["ann1"]
    assert found.table("products").rows[0]["title"] == "Tea"
    assert found.table("decided").rows[0]["state"] == "dismissed"
    assert found.table("orders").rows[0]["quantity"] == 500.0
    left_out = next(tile for tile in found.tiles if tile.title == "Actions left out")
    assert left_out.value == "5.00%"


def test_the_fraud_report_says_when_fraud_was_last_looked_for(database: Database, filled: Settings) -> None:
    def told(after_days: float = 0.0) -> Report:
        return fraud_report(database, filled, {}, now=time.time() + 86_400.0 * after_days)

    def looks(summary: dict[str, Any]) -> None:
        run_id = Runs(database).submit(JOB)
        Runs(database).claim("w", run_id=run_id)
        Runs(database).finish(run_id, "w", summary)

    never = told()
    assert never.line.endswith("nobody has looked for fraud yet")
    assert (never.tiles[0].value, never.tiles[0].state) == ("never", "bad")
    assert "endcap run fraud --wait" in never.notes[0]
    assert never.table("devices").line == "Nobody has looked for fraud yet."

    looks(watch(database, filled, lambda *_: None).summary)
    found = told()
    assert "looked at 600 actions of 20 shoppers" in found.line
    assert found.tiles[0].line.endswith(", 600 actions of 20 shoppers")
    assert not found.notes
    assert found.table("devices").line == "Looked at 20 shoppers, nothing found."
    assert found.table("shoppers").line == "Those that wait for a decision first."
    assert "was 9 days ago; 0 actions came since" in told(9).notes[0]

    looks({"actions": 4, "shoppers": 1, "suspected": {}})
    assert told().line.endswith("looked at 4 actions of 1 shopper, nothing found")


@pytest.mark.parametrize("kind", ["fraud", "inventory"])
def test_a_report_is_made_kept_and_listed(database: Database, filled: Settings, kind: str) -> None:
    phases: list[str] = []
    kept = make_report(kind, database, filled, lambda done, total, phase: phases.append(phase), "daily")
    store = Reports(database, filled.data_dir)
    assert store.get(kind).id == kept.id
    for name in ("report.html", "report.json", "report.xlsx"):
        assert store.file(kept, name).stat().st_size > 1_000
    assert len(set(phases)) > 3
    with pytest.raises(InvalidInput):
        make_report("weather", database, filled, lambda *_: None)


def test_the_jobs_are_there() -> None:
    jobs = load_jobs()
    assert {"fraud", "fraud-light", "report-fraud-daily", "report-inventory-weekly"} <= set(jobs)
    assert jobs["report-inventory-daily"].schedule

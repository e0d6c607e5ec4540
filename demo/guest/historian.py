"""A historian: polls the PLC by Debian's pymodbus into an SQLite database, publishes the values to the MQTT broker by mosquitto_pub,
and answers questions about the past over HTTP.

GET /trend?seconds=N    {"samples": [[age in s, level in mm, setpoint in mm, pump, valve in %], ...], "stored": number of all samples}
GET /alarms             {"alarms": [[age in s, "high" or "low", "on" or "off"], ...]}, the latest first
"""
import json
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pymodbus.client import ModbusTcpClient

from registers import ALARMS, HIGH, INFLOW, LEVEL, LOW, MEASURED, OUTFLOW, PUMP, SETPOINT, VALVE

PLC, BROKER = "10.77.0.60", "10.77.0.20"
DATABASE = "/var/lib/historian.db"
POLL_S = 0.5
MAXIMUM_SAMPLES = 2000  # of one answer

SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (time REAL PRIMARY KEY, level INTEGER, inflow INTEGER, outflow INTEGER, pump INTEGER, valve INTEGER,
                                    setpoint INTEGER);
CREATE TABLE IF NOT EXISTS alarms (time REAL, alarm TEXT, state TEXT);
"""


def connect():
    database = sqlite3.connect(DATABASE, timeout=10)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database


class Publisher:
    """Lines to the broker, each a message; a connection that is lost is made again with a later one."""

    def __init__(self):
        self.process, self.started = None, 0.0

    def publish(self, line):
        if self.process is None or self.process.poll() is not None:
            if time.monotonic() - self.started < 2:
                return
            self.started = time.monotonic()
            self.process = subprocess.Popen(["mosquitto_pub", "-h", BROKER, "-t", "plant/tank", "-r", "-l"], stdin=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL, text=True)
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass


def poll():
    database, client, publisher, was = connect(), ModbusTcpClient(PLC, timeout=3), Publisher(), 0
    stored = 0
    while True:
        began = time.monotonic()
        answer = client.read_holding_registers(LEVEL, MEASURED, slave=1) if client.connect() else None
        if answer is None or answer.isError():
            client.close()
        else:
            r, now = answer.registers, time.time()
            with database:
                database.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)",
                                 (now, r[LEVEL], r[INFLOW], r[OUTFLOW], r[PUMP], r[VALVE], r[SETPOINT]))
                for bit, name in ((HIGH, "high"), (LOW, "low")):
                    if (r[ALARMS] ^ was) & bit:
                        database.execute("INSERT INTO alarms VALUES (?, ?, ?)", (now, name, "on" if r[ALARMS] & bit else "off"))
            was = r[ALARMS]
            publisher.publish(json.dumps({"level": r[LEVEL], "setpoint": r[SETPOINT], "pump": r[PUMP]}))
            stored += 1
            if stored in (1, 10, 100):
                print(f"HISTORIAN: {stored} samples in the database")
        time.sleep(max(0.0, POLL_S - (time.monotonic() - began)))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        url, database = urlsplit(self.path), connect()
        now = time.time()
        try:
            if url.path == "/trend":
                seconds = min(float(parse_qs(url.query).get("seconds", ["120"])[0]), 86400)
                rows = database.execute("SELECT ? - time, level, setpoint, pump, valve FROM samples WHERE time > ? ORDER BY time DESC LIMIT ?",
                                        (now, now - seconds, MAXIMUM_SAMPLES)).fetchall()
                stored = database.execute("SELECT count(*) FROM samples").fetchone()[0]
                self.answer(200, {"samples": [[round(row[0], 1), *row[1:]] for row in reversed(rows)], "stored": stored})
            elif url.path == "/alarms":
                rows = database.execute("SELECT ? - time, alarm, state FROM alarms ORDER BY time DESC LIMIT 20", (now,)).fetchall()
                self.answer(200, {"alarms": rows})
            else:
                self.answer(404, {"error": "there are /trend and /alarms"})
        except ValueError:
            self.answer(400, {"error": "seconds is no number"})
        finally:
            database.close()

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with connect() as made:
        made.executescript(SCHEMA)
    threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", 8086), Handler).serve_forever, daemon=True).start()
    poll()
    sys.exit(1)

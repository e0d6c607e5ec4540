"""The operator's screen: reads the PLC and the historian and shows them to a browser. Python's standard library only.

GET /           the page
GET /state      what it shows, see state()
POST /setpoint  {"value": mm}; by the page only: a request of another site's page is refused
"""
import json
import pathlib
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from modbus import Client, ModbusError
from registers import (ALARMS, CYCLES, HIGH, HIGH_LIMIT, INFLOW, LEVEL, LOW, LOW_LIMIT, MEASURED, OUTFLOW, PUMP, SETPOINT, SETPOINT_RANGE,
                       TANK_HEIGHT, VALVE, WANTED_SETPOINT)

PLC, HISTORIAN = "10.77.0.60", "http://10.77.0.30:8086"
PAGE = (pathlib.Path(__file__).parent / "hmi.html").read_bytes()
TREND_S = 120
AGE_S = 0.4  # an answer that is younger serves every browser


class State:
    def __init__(self):
        self.plc, self.lock, self.made, self.kept = Client(PLC), threading.Lock(), 0.0, b""

    def json(self):
        with self.lock:
            if time.monotonic() - self.made > AGE_S:
                self.kept, self.made = json.dumps(self.state()).encode(), time.monotonic()
            return self.kept

    def state(self):
        """plc and historian are null as long as they do not answer."""
        try:
            r = self.plc.read(LEVEL, MEASURED)
            high, low = self.plc.read(HIGH_LIMIT, 2)
            plc = {"level": r[LEVEL], "height": TANK_HEIGHT, "inflow": r[INFLOW], "outflow": r[OUTFLOW], "pump": bool(r[PUMP]),
                   "valve": r[VALVE], "setpoint": r[SETPOINT], "cycles": r[CYCLES], "highLimit": high, "lowLimit": low,
                   "alarms": [name for bit, name in ((HIGH, "high"), (LOW, "low")) if r[ALARMS] & bit]}
        except (OSError, ModbusError):
            plc = None
        try:
            historian = {**self.past(f"/trend?seconds={TREND_S}"), **self.past("/alarms"), "seconds": TREND_S}
        except (OSError, ValueError):
            historian = None
        return {"plc": plc, "historian": historian, "setpointRange": SETPOINT_RANGE}

    @staticmethod
    def past(path):
        with urllib.request.urlopen(HISTORIAN + path, timeout=3) as answer:
            return json.load(answer)


STATE = State()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        if self.path == "/":
            self.answer(200, PAGE, "text/html; charset=utf-8")
        elif self.path == "/state":
            self.answer(200, STATE.json())
        else:
            self.complain(404, "no such page")

    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1000))
        if self.path != "/setpoint":
            return self.complain(404, "no such page")
        # Pages of other sites can send neither this type nor this origin.
        if self.headers.get("Content-Type") != "application/json" or self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            return self.complain(403, "not this page's request")
        try:
            value = json.loads(body)["value"]
            if not isinstance(value, int) or not SETPOINT_RANGE[0] <= value <= SETPOINT_RANGE[1]:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            return self.complain(400, f"a setpoint is a whole number from {SETPOINT_RANGE[0]} to {SETPOINT_RANGE[1]}")
        try:
            STATE.plc.write(WANTED_SETPOINT, value)
        except (OSError, ModbusError) as error:
            return self.complain(502, f"the PLC says: {error}")
        return self.answer(200, b'{"done": true}')

    def complain(self, status, text):
        self.answer(status, json.dumps({"error": text}).encode())

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    print("HMI: serving HTTP")
    ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()

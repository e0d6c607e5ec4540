"""The PLC's holding registers, unit 1, as every machine of the demo's plant knows them.

0 to 7 are what the PLC measures and does, 10 is the operator's, 20 and 21 are the engineer's.
"""
LEVEL = 0  # mm
INFLOW = 1  # l/min
OUTFLOW = 2  # l/min
PUMP = 3  # 1: runs
VALVE = 4  # % open
ALARMS = 5  # bits: HIGH, LOW
CYCLES = 6  # of the program, modulo 65536
SETPOINT = 7  # mm, in force
MEASURED = 8  # how many of them

WANTED_SETPOINT = 10  # mm

HIGH_LIMIT = 20  # mm
LOW_LIMIT = 21  # mm

COUNT = 32
HIGH, LOW = 1, 2
TANK_HEIGHT = 2000  # mm
SETPOINT_RANGE = (300, 1700)  # mm

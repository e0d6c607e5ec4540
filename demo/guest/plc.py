"""A PLC at a tank: Modbus/TCP by Debian's pymodbus, and a simulated process behind it, ten cycles a second.

The tank's base is 1 m2, so a litre is a millimetre. A pump fills it, switched by the level against a setpoint; a valve that opens and
closes with the consumers' demand drains it.
"""
import asyncio
import logging
import math

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartAsyncTcpServer

from registers import (ALARMS, COUNT, CYCLES, HIGH, HIGH_LIMIT, INFLOW, LEVEL, LOW, LOW_LIMIT, OUTFLOW, PUMP, SETPOINT, SETPOINT_RANGE,
                       TANK_HEIGHT, VALVE, WANTED_SETPOINT)

CYCLE_S = 0.1
PUMP_L_MIN = 1500
VALVE_L_MIN = 1500  # fully open
HYSTERESIS = 40  # mm


class Registers(ModbusSequentialDataBlock):
    def setValues(self, address, values):  # by a Modbus request
        for number, value in enumerate(values):
            print(f"PLC: register {address + number} written: {value}")
        super().setValues(address, values)


class Process:
    """registers: a list that the process reads its settings from, and writes what it measures to."""

    def __init__(self, registers):
        self.registers, self.level, self.pump, self.seconds = registers, 820.0, True, 0.0

    def cycle(self):
        r = self.registers
        self.seconds += CYCLE_S
        valve = 0.5 + 0.2 * math.sin(self.seconds / 7)
        setpoint = min(max(r[WANTED_SETPOINT], SETPOINT_RANGE[0]), SETPOINT_RANGE[1])
        if self.level < setpoint - HYSTERESIS:
            self.pump = True
        elif self.level > setpoint + HYSTERESIS:
            self.pump = False
        inflow, outflow = PUMP_L_MIN if self.pump else 0, VALVE_L_MIN * valve if self.level > 0 else 0
        self.level = min(max(self.level + (inflow - outflow) / 60 * CYCLE_S, 0), TANK_HEIGHT)
        r[LEVEL], r[INFLOW], r[OUTFLOW] = round(self.level), inflow, round(outflow)
        r[PUMP], r[VALVE], r[SETPOINT] = int(self.pump), round(valve * 100), setpoint
        r[ALARMS] = (HIGH if r[LEVEL] > r[HIGH_LIMIT] else 0) | (LOW if r[LEVEL] < r[LOW_LIMIT] else 0)
        r[CYCLES] = (r[CYCLES] + 1) % 65536


async def main():
    block = Registers(0, [0] * COUNT)
    block.values[WANTED_SETPOINT], block.values[HIGH_LIMIT], block.values[LOW_LIMIT] = 1000, 1500, 500
    process = Process(block.values)

    async def run():
        while True:
            process.cycle()
            await asyncio.sleep(CYCLE_S)

    task = asyncio.create_task(run())
    context = ModbusServerContext(ModbusSlaveContext(hr=block, zero_mode=True), single=True)
    print("PLC: serving Modbus/TCP")
    await asyncio.gather(task, StartAsyncTcpServer(context, address=("0.0.0.0", 502)))


logging.basicConfig(level=logging.ERROR)
if __name__ == "__main__":
    asyncio.run(main())

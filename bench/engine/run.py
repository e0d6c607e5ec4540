#!/usr/bin/env python3
"""Compares the speed of Bulkhead's software engine with QEMU's TCG and with this host: see bench/README.md.

Exit status: 0 when everything ran and every checksum agreed, 1 when not, 2 for a wrong option. Missing a gate is no failure of a run.
"""
import argparse
import datetime
import fnmatch
import json
import pathlib
import platform
import signal
import subprocess
import sys

import guest
import report
import sides

GROUPS = ["integer", "fp", "system"]
SECTIONS = GROUPS + ["boot", "programs", "scaling", "counting", "memory"]
# What is counted in the section "counting": no system workloads, whose time is the kernel's.
COUNTED = ["integer", "fp"]


class Bench:
    def __init__(self, options):
        self.options = options
        self.table = report.Table()
        self.facts = {}
        self.problems = []
        self.checksums = {}
        self.groups = guest.workloads()

    def chosen(self, group, names=None):
        """The workloads of a group that --only leaves; a pattern may name the section, too."""
        names = names or [name for name, its in self.groups.items() if its == group]
        only = self.options.only
        if not only or any(fnmatch.fnmatch(group, pattern) for pattern in only):
            return names
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in only)]

    def say(self, text):
        if not self.options.silent:
            print(text, file=sys.stderr, flush=True)

    def take(self, result, wanted, group_of):
        """Keeps a side's figures; what is missing or differs from another side's checksum is a problem."""
        if result.error:
            self.problems.append(result.error)
        for name in wanted:
            measurement = result.measurements.get(name)
            if measurement is None:
                if not result.error:
                    self.problems.append(f"{result.side}: {name} gave no figure: {result.complaints.get(name, 'it said nothing')}")
                continue
            first_side, checksum = self.checksums.setdefault(name, (result.side, measurement.checksum))
            if measurement.checksum != checksum:
                self.problems.append(f"{name}: checksum {measurement.checksum} on {result.side}, {checksum} on {first_side}")
                continue
            self.table.add(name, group_of(name), result.side, measurement.guest_ns / 1e9, measurement.cpu_ns / 1e9)
        self.say(f"  {result.side}: {result.seconds:.1f} s, CPU {result.cpu_seconds:.1f} s" + (f", {result.error}" if result.error else ""))

    def rounds(self, title, action):
        """Every round asks each side in turn, so that a change of the machine's mood meets all of them."""
        for number in range(self.options.rounds):
            self.say(f"{title}, round {number + 1} of {self.options.rounds}")
            action()

    def run_workloads(self):
        names = [name for group in GROUPS for name in self.chosen(group)]
        if not names:
            return

        def once():
            for side in self.options.sides:
                result = sides.SIDES[side](names, divisor=self.options.divisor, timeout=self.options.timeout)
                if side == "bulkhead" and result.memory_kib:
                    self.facts["memory at the end, MiB"] = max(self.facts.get("memory at the end, MiB", 0.0), result.memory_kib / 1024)
                elif side == "tcg" and result.memory_kib:
                    self.facts["tcg's memory at the end, MiB"] = result.memory_kib / 1024
                self.take(result, names, self.groups.get)

        self.rounds("workloads", once)

    def run_programs(self):
        names = self.chosen("programs", guest.available_programs())
        missing = sorted(set(guest.PROGRAMS) - set(guest.available_programs()))
        if missing:
            self.facts["programs that are not installed"] = ", ".join(missing)
        if not names:
            return
        guest.build_disk()

        def once():
            for side in self.options.sides:
                self.take(sides.SIDES[side]([], programs=names, timeout=self.options.timeout), names, lambda name: "programs")

        self.rounds("programs", once)

    def run_boots(self):
        flavours = [f for f in ("cloud", "amd64", "rt") if (guest.GUESTS / f / "initrd").exists()]
        if self.options.quick:
            flavours = flavours[:1]
        for name in self.chosen("boot", [f"boot_{flavour}" for flavour in flavours]):
            # The big kernels take long, and their boots differ little: two rounds say it.
            for number in range(self.options.rounds if name == "boot_cloud" else min(self.options.rounds, 2)):
                self.say(f"{name}, round {number + 1}")
                for side in self.options.sides:
                    if side == "native":
                        continue
                    result = sides.boot(side, name.removeprefix("boot_"), self.options.timeout)
                    self.say(f"  {side}: {result.seconds:.1f} s")
                    if result.error:
                        self.problems.append(f"{name}: {result.error}")
                    else:
                        self.table.add(name, "boot", side, result.seconds, result.cpu_seconds)

    def run_scaling(self):
        names = self.chosen("scaling")
        if not names:
            return

        def once():
            for side in self.options.sides:
                self.take(sides.SIDES[side](names, cpus=2, divisor=self.options.divisor, timeout=self.options.timeout), names,
                          lambda name: "scaling")

        self.rounds("two vCPUs", once)
        for side in self.options.sides:
            gains = []
            for work in ("compute", "memory", "lock"):
                one, two = (self.table.median(f"{work}_by_{n}", side) for n in (1, 2))
                if one and two:
                    gains.append(one / two)
                    self.facts[f"2 vCPUs, {side}: {work}, two threads over one"] = one / two
            if gains:
                self.facts[f"2 vCPUs, {side}: two threads over one"] = report.geometric_mean(gains)
        ours, possible = (self.facts.get(f"2 vCPUs, {side}: two threads over one") for side in ("bulkhead", "native"))
        if ours and possible:
            self.facts["2 vCPUs: bulkhead's gain as a part of the host's own"] = ours / possible

    def run_counting(self):
        """A deterministic guest's clock counts instructions, so the host measures: the time between two lines on the console (CPU time is counted in steps of some milliseconds, longer than some workloads take)."""
        if "bulkhead" not in self.options.sides or (self.options.only and "counting" not in self.options.only):
            return
        # "--only counting" means all of them, "--only counting --only n_body" this one.
        names = [name for group in COUNTED for name in self.chosen(group)] or [
            name for name, group in self.groups.items() if group in COUNTED]
        plain, counted = {}, {}
        for number in range(min(self.options.rounds, 2)):
            self.say(f"counting, round {number + 1}")
            for into, extra in ((plain, ()), (counted, ("--deterministic",))):
                result = sides.run_bulkhead(names, divisor=self.options.divisor, timeout=self.options.timeout, extra=extra)
                self.say(f"  {'counted' if extra else 'plain'}: {result.seconds:.1f} s {result.error}")
                if result.error:
                    self.problems.append(f"counting: {result.error}")
                for name, measurement in result.measurements.items():
                    if self.checksums.setdefault(name, ("bulkhead", measurement.checksum))[1] != measurement.checksum:
                        self.problems.append(f"{name}: another checksum with {extra or 'no option'}")
                    into.setdefault(name, []).append(measurement.host_ns)
        costs = {name: report.median(counted[name]) / report.median(plain[name]) for name in names if name in plain and name in counted}
        if costs:
            worst = max(costs, key=costs.get)
            self.facts["counting, deterministic over plain"] = report.geometric_mean(costs.values())
            self.facts[f"counting, worst workload ({worst})"] = costs[worst]
            self.counting = costs

    def run_memory(self):
        if "bulkhead" in self.options.sides and (not self.options.only or "memory" in self.options.only):
            kib = sides.memory_before_start_kib()
            if kib:
                self.facts["memory before the guest, MiB"] = kib / 1024
            else:
                self.problems.append("memory: bulkhead did not stand in front of its guest")

    def everything(self):
        self.counting = {}
        for section, action in (("memory", self.run_memory), ("workloads", self.run_workloads), ("programs", self.run_programs),
                                ("scaling", self.run_scaling), ("counting", self.run_counting), ("boot", self.run_boots)):
            if section not in self.options.skip:
                action()
                self.write()

    def heading(self):
        options = self.options
        revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=guest.ROOT, capture_output=True, text=True).stdout.strip()
        model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
        return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "revision": revision,
                "rounds": options.rounds, "host": f"{model}, Linux {platform.release()}",
                "tcg": subprocess.run([sides.QEMU, "--version"], capture_output=True, text=True).stdout.splitlines()[0] if sides.QEMU else None,
                "load average": open("/proc/loadavg").read().split()[0]}

    def write(self):
        heading = self.heading()
        text = "Bulkhead against QEMU's TCG: " + ", ".join(f"{k} {v}" for k, v in heading.items()) + "\n\n" + report.markdown(self.table, self.facts)
        if self.problems:
            text += "\n\n### Problems\n\n" + "\n".join(f"- {problem}" for problem in self.problems)
        if self.options.text:
            self.options.text.write_text(text + "\n")
        if self.options.json:
            self.options.json.write_text(json.dumps({
                "run": heading, "workloads": list(self.table.rows()), "facts": self.facts, "counting": self.counting,
                "groups": {group: {"tcg/bulkhead": self.table.group_ratio(group, "tcg", "bulkhead"),
                                   "bulkhead/native": self.table.group_ratio(group, "bulkhead", "native")}
                           for group in dict.fromkeys(self.table.groups.values())},
                "gates": report.gates(self.table, self.facts), "problems": self.problems}, indent=1) + "\n")
        return text


def selftest():
    """That the parts work together: two small workloads on this host and in a Bulkhead guest, with equal checksums."""
    options = parse(["--rounds", "1", "--sides", "native,bulkhead", "--only", "queens", "--only", "fork_exec", "--divisor", "10", "--timeout",
                     "60", "--silent"])
    bench = Bench(options)
    bench.counting = {}
    bench.run_workloads()
    measured = sorted(key for key in bench.table.samples if not key[1].endswith(" cpu"))
    expected = sorted((name, side) for name in ("queens", "fork_exec") for side in ("native", "bulkhead"))
    print("\n".join(bench.problems) if bench.problems else f"selftest: {len(measured)} figures, checksums equal")
    return 0 if not bench.problems and measured == expected else 1


def parse(arguments):
    parser = argparse.ArgumentParser(prog="bench engine", description="Bulkhead's software engine against QEMU's TCG and this host.")
    parser.add_argument("--rounds", type=int, help="how often each side runs everything (3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="one round, and only the cloud kernel's boot")
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help=f"a section ({', '.join(SECTIONS)}) or a workload, with * and ?; may be given several times")
    parser.add_argument("--skip", action="append", default=[], choices=["memory", "workloads", "boot", "programs", "scaling", "counting"],
                        help="leave a part out; may be given several times")
    parser.add_argument("--sides", default="native,bulkhead,tcg", help="which sides run (native,bulkhead,tcg)")
    parser.add_argument("--code-cache", metavar="SIZE", help="give Bulkhead's vCPUs a code cache of this size, like 64M")
    parser.add_argument("--divisor", type=int, default=1, help="do only this part of each workload's work")
    parser.add_argument("--timeout", type=int, default=240, help="seconds after which a guest counts as hung (240)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured there, after each section anew")
    parser.add_argument("--text", type=pathlib.Path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--list", action="store_true", help="name the workloads and end")
    parser.add_argument("--selftest", action="store_true", help="check the parts of this program with two small workloads")
    parser.add_argument("--silent", action="store_true", help="no progress on standard error")
    options = parser.parse_args(arguments)
    options.sides = options.sides.split(",")
    unknown = [side for side in options.sides if side not in sides.SIDES]
    if unknown:
        parser.error(f"no side '{unknown[0]}': native, bulkhead or tcg")
    if "tcg" in options.sides and not sides.QEMU:
        parser.error("qemu-system-x86_64 is not installed: install it, or give --sides native,bulkhead")
    if options.code_cache:
        sides.EVERY_BULKHEAD += ["--code-cache", options.code_cache]
    if options.rounds is None:
        options.rounds = 1 if options.quick else 3
    if options.rounds < 1 or options.divisor < 1 or options.timeout < 1:
        parser.error("--rounds, --divisor and --timeout begin at 1")
    return options


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # and so ends the guest that runs
    if not sides.BULKHEAD.exists():
        raise SystemExit(f"bench: no {sides.BULKHEAD}: build release first (tools/dev bench engine does)")
    guest.build_workloads()
    guest.build_initrd()
    if options.list:
        for name, group in list(guest.workloads().items()) + [(name, "programs") for name in guest.PROGRAMS]:
            print(f"{group:8} {name}")
        return 0
    if options.selftest:
        return selftest()
    bench = Bench(options)
    known = list(bench.groups) + list(guest.PROGRAMS) + SECTIONS + ["boot_cloud", "boot_amd64", "boot_rt"]
    for pattern in options.only:
        if not fnmatch.filter(known, pattern):
            print(f"bench: --only {pattern}: no such section or workload; --list names them", file=sys.stderr)
            return 2
    bench.everything()
    print(bench.write())
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())

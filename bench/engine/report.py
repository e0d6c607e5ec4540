"""From measurements to medians, ratios, tables and JSON. Knows nothing of how they were made."""
import math
import statistics

# What issue-level gates demand: (name, what it is compared with, at least or at most, value).
GATES = [
    ("integer", "tcg", ">=", 2.5),
    ("fp", "tcg", ">=", 8.0),
    ("system", "tcg", ">=", 2.0),
    ("fork_exec", "tcg", ">=", 3.0),
    ("programs", "tcg", ">=", 2.5),
    ("boot_cloud", "tcg", ">=", 1.5),
    ("integer", "native", "<=", 2.2),
    ("scaling", "one thread", ">=", 1.8),
    ("counting", "plain", "<=", 1.10),
    ("memory before the guest, MiB", "", "<=", 8.0),
    ("memory at the end, MiB", "", "<=", 64.0),
]


def median(values):
    return statistics.median(values) if values else None


def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else None


class Table:
    """Samples in seconds by (workload, side), with the group of each workload. "SIDE cpu" is the CPU time of that side's process."""

    def __init__(self):
        self.samples = {}
        self.groups = {}

    def add(self, name, group, side, seconds, cpu_seconds=None):
        self.groups[name] = group
        self.samples.setdefault((name, side), []).append(seconds)
        if cpu_seconds is not None:
            self.samples.setdefault((name, f"{side} cpu"), []).append(cpu_seconds)

    def median(self, name, side):
        return median(self.samples.get((name, side)))

    def ratio(self, name, above, below):
        a, b = self.median(name, above), self.median(name, below)
        return a / b if a and b else None

    def group_ratio(self, group, above, below):
        return geometric_mean([r for name, g in self.groups.items() if g == group and (r := self.ratio(name, above, below))])

    def rows(self):
        """One dictionary for each workload."""
        for name, group in self.groups.items():
            row = {"name": name, "group": group}
            for side in ("native", "bulkhead", "tcg", "native cpu", "bulkhead cpu", "tcg cpu"):
                values = self.samples.get((name, side))
                if values:
                    row[side] = {"median": median(values), "min": min(values), "max": max(values), "samples": values}
            row["tcg/bulkhead"] = self.ratio(name, "tcg", "bulkhead")
            row["bulkhead/native"] = self.ratio(name, "bulkhead", "native")
            row["tcg/bulkhead cpu"] = self.ratio(name, "tcg cpu", "bulkhead cpu")
            row["bulkhead/native cpu"] = self.ratio(name, "bulkhead cpu", "native cpu")
            yield row


def number(value, form="{:.2f}"):
    return form.format(value) if value is not None else "-"


def milliseconds(entry):
    if entry is None:
        return "-"
    return f"{entry['median'] * 1e3:.1f} ({entry['min'] * 1e3:.1f}..{entry['max'] * 1e3:.1f})"


def markdown(table, facts):
    """The tables for a reader: times in milliseconds as median (min..max), ratios of the medians."""
    lines = []
    groups = list(dict.fromkeys(table.groups.values()))
    for group in groups:
        rows = [row for row in table.rows() if row["group"] == group]
        lines += [f"### {group}", "", "| workload | native ms | bulkhead ms | tcg ms | faster than tcg | slower than native "
                  "| faster than tcg, CPU time | slower than native, CPU time |", "|---|---|---|---|---|---|---|---|"]
        for row in rows:
            lines.append(f"| {row['name']} | {milliseconds(row.get('native'))} | {milliseconds(row.get('bulkhead'))} | {milliseconds(row.get('tcg'))} "
                         f"| {number(row['tcg/bulkhead'])}x | {number(row['bulkhead/native'])}x | {number(row['tcg/bulkhead cpu'])}x "
                         f"| {number(row['bulkhead/native cpu'])}x |")
        lines += [f"| **geometric mean** | | | | **{number(table.group_ratio(group, 'tcg', 'bulkhead'))}x** "
                  f"| **{number(table.group_ratio(group, 'bulkhead', 'native'))}x** "
                  f"| **{number(table.group_ratio(group, 'tcg cpu', 'bulkhead cpu'))}x** "
                  f"| **{number(table.group_ratio(group, 'bulkhead cpu', 'native cpu'))}x** |", ""]
    if facts:
        lines += ["### Other figures", "", "| what | value |", "|---|---|"]
        lines += [f"| {name} | {number(value) if isinstance(value, float) else value} |" for name, value in facts.items()] + [""]
    lines += gate_lines(table, facts)
    return "\n".join(lines)


def measured_for(gate, table, facts):
    name, peer, _, _ = gate
    if name in facts:
        return facts[name]
    if peer in ("one thread", "plain", ""):
        return facts.get({"one thread": "2 vCPUs, bulkhead: two threads over one", "plain": "counting, deterministic over plain"}.get(peer))
    above, below = ("tcg", "bulkhead") if peer == "tcg" else ("bulkhead", "native")
    return table.ratio(name, above, below) if name in table.groups else table.group_ratio(name, above, below)


def gates(table, facts):
    """What is demanded beside what was measured; what was not measured is left out."""
    found = []
    for gate in GATES:
        value = measured_for(gate, table, facts)
        if value is not None:
            name, peer, relation, limit = gate
            found.append({"gate": f"{name} against {peer}" if peer else name, "demanded": f"{relation} {limit}", "measured": value, "by CPU time": by_cpu_time(gate, table),
                          "met": value >= limit if relation == ">=" else value <= limit})
    return found


def by_cpu_time(gate, table):
    """The same ratio of CPU times, where the gate is one of workloads or groups."""
    name, peer, _, _ = gate
    if peer not in ("tcg", "native"):
        return None
    above, below = ("tcg cpu", "bulkhead cpu") if peer == "tcg" else ("bulkhead cpu", "native cpu")
    return table.ratio(name, above, below) if name in table.groups else table.group_ratio(name, above, below)


def slower_than_tcg(table, ratio="tcg/bulkhead"):
    return [row["name"] for row in table.rows() if row[ratio] is not None and row[ratio] < 1]


def gate_lines(table, facts):
    lines = ["### Demanded and measured", "", "| gate | demanded | measured | by CPU time | met |", "|---|---|---|---|---|"]
    for gate in gates(table, facts):
        lines.append(f"| {gate['gate']} | {gate['demanded']} | {number(gate['measured'])} | {number(gate['by CPU time'])} | {'yes' if gate['met'] else 'NO'} |")
    slower, by_cpu = slower_than_tcg(table), slower_than_tcg(table, "tcg/bulkhead cpu")
    lines.append(f"| no workload slower than tcg | 0 | {len(slower)} | {len(by_cpu)} | {'NO: ' + ', '.join(slower) if slower else 'yes'} |")
    if by_cpu:
        lines += ["", "Slower than tcg by CPU time: " + ", ".join(by_cpu) + "."]
    return lines

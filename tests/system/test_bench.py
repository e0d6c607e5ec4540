"""The engine's benchmark: that its parts work, not how fast anything is."""
import importlib
import subprocess
import sys

from bulkhead import BULKHEAD, ROOT

RUNNER = ROOT / "bench/engine/run.py"
sys.path.insert(0, str(RUNNER.parent))
report = importlib.import_module("report")


def bench(*arguments, bulkhead=BULKHEAD):
    environment = {"BULKHEAD": str(bulkhead), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    return subprocess.run([sys.executable, RUNNER, *arguments], capture_output=True, text=True, timeout=120, env=environment)


def script(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_two_workloads_give_the_same_checksums_on_the_host_and_in_a_guest():
    done = bench("--selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 figures, checksums equal" in done.stdout


def test_the_groups_are_as_large_as_demanded():
    lines = [line.split() for line in bench("--list").stdout.splitlines()]
    sizes = {group: sum(line[0] == group for line in lines) for group in ("integer", "fp", "system", "programs")}
    assert sizes["integer"] >= 12 and sizes["fp"] >= 6 and sizes["system"] >= 8 and sizes["programs"] >= 7, sizes
    assert len({line[1] for line in lines if line[0] != "programs"}) == sum(line[0] != "programs" for line in lines)


def test_wrong_options_are_named():
    done = bench("--only", "no_such_workload")
    assert done.returncode == 2 and "no_such_workload" in done.stderr
    done = bench("--sides", "kvm")
    assert done.returncode == 2 and "no side 'kvm'" in done.stderr


def test_ratios_are_of_medians_and_groups_of_geometric_means():
    table = report.Table()
    for seconds in (1.0, 9.0, 2.0):
        table.add("a", "integer", "bulkhead", seconds)
    table.add("a", "integer", "tcg", 4.0)
    table.add("b", "integer", "bulkhead", 1.0)
    table.add("b", "integer", "tcg", 8.0)
    table.add("c", "integer", "tcg", 5.0)  # no figure of Bulkhead: no ratio
    assert table.ratio("a", "tcg", "bulkhead") == 2.0
    assert abs(table.group_ratio("integer", "tcg", "bulkhead") - 4.0) < 1e-9
    assert table.ratio("c", "tcg", "bulkhead") is None
    gates = {gate["gate"]: gate["met"] for gate in report.gates(table, {"memory at the end, MiB": 65.0})}
    assert gates == {"integer against tcg": True, "memory at the end, MiB": False}


def test_a_workload_slower_than_tcg_is_named():
    table = report.Table()
    table.add("slow", "fp", "bulkhead", 3.0)
    table.add("slow", "fp", "tcg", 2.0)
    table.add("fast", "fp", "bulkhead", 1.0)
    table.add("fast", "fp", "tcg", 2.0)
    assert report.slower_than_tcg(table) == ["slow"]
    assert "NO: slow" in report.markdown(table, {})
    table.add("busy", "fp", "bulkhead", 1.0, cpu_seconds=1.0)
    table.add("busy", "fp", "tcg", 3.0, cpu_seconds=0.5)  # it waited for the CPU most of its time
    assert report.slower_than_tcg(table, "tcg/bulkhead cpu") == ["busy"]


def test_another_checksum_on_one_side_fails_the_run(tmp_path):
    """A Bulkhead that lies: a script that prints a wrong checksum where the guest's console would be."""
    liar = script(tmp_path / "liar", "echo 'begin: queens'\necho 'bench: queens 0000000000000001 5 5'\necho finished\n")
    done = bench("--sides", "native,bulkhead", "--rounds", "1", "--only", "queens", "--divisor", "100", bulkhead=liar)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "queens: checksum 0000000000000001 on bulkhead" in done.stdout


def test_a_guest_that_hangs_and_one_that_says_nothing_fail_the_run(tmp_path):
    hung = script(tmp_path / "hung", "echo 'begin: queens'\nsleep 100\n")
    done = bench("--sides", "bulkhead", "--rounds", "1", "--only", "queens", "--timeout", "1", bulkhead=hung)
    assert done.returncode == 1 and "not finished after 1 s" in done.stdout, done.stdout + done.stderr
    silent = script(tmp_path / "silent", "echo 'bench: queens: out of luck'\n")
    done = bench("--sides", "bulkhead", "--rounds", "1", "--only", "queens", bulkhead=silent)
    assert done.returncode == 1 and "queens gave no figure: out of luck" in done.stdout, done.stdout + done.stderr

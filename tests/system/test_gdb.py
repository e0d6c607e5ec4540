"""The real gdb debugs a guest: registers, memory by virtual address, steps, breakpoints, watchpoints."""
import shutil
import subprocess

import pytest

from bulkhead import BULKHEAD, GUESTS, debian_arguments



@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_debugs_a_tiny_guest(tmp_path):
    socket = tmp_path / "gdb.sock"
    process = subprocess.Popen([str(BULKHEAD), "run", "--engine", "soft", "--memory", "16M", "--kernel", str(GUESTS / "tiny/hello"),
                                "--debug-exit", "--gdb", str(socket), "--serial", f"file:{tmp_path}/serial"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    script = tmp_path / "script"
    script.write_text(f"""set pagination off
set confirm off
target remote {socket}
hbreak guest_main
continue
printf "AT %d\\n", (int)$eip == (int)&guest_main
set $before = $eip
stepi
printf "STEPPED %d\\n", (int)$eip != (int)$before
x/2xw 0x100000
watch *(int*)&idt
delete
set $esp = $esp - 16
set $esp = $esp + 16
info registers eip esp cr0
continue
""")
    try:
        gdb = subprocess.run(["gdb", "-nx", "-batch", "-x", str(script), str(GUESTS / "tiny/hello")], capture_output=True, text=True,
                             timeout=60)
        text = gdb.stdout + gdb.stderr
        assert "AT 1" in text, text
        assert "STEPPED 1" in text, text
        assert "0x1badb002" in text.lower(), text
        assert process.wait(timeout=30) == 43, text
        assert "hello" in (tmp_path / "serial").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_debugs_debian_by_virtual_address(tmp_path):
    socket = tmp_path / "gdb.sock"
    arguments = [str(a) for a in debian_arguments(extra_command_line="nokaslr")]
    process = subprocess.Popen([str(BULKHEAD), *arguments, "--gdb", str(socket), "--serial", f"file:{tmp_path}/serial"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # Debian's vmlinux has no symbols; startup_64 of the unpacked kernel is where paging with kernel addresses begins.
    script = tmp_path / "script"
    script.write_text(f"""set pagination off
set confirm off
set architecture i386:x86-64
target remote {socket}
hbreak *0xffffffff81000000
watch *(long*)0xffffffff81000000
delete
continue&
shell sleep 12
interrupt
shell sleep 1
info registers rip cr3
x/8xb 0xffffffff81000000
info threads
monitor quit
""")
    try:
        gdb = subprocess.run(["gdb", "-nx", "-batch", "-ex", "set target-async on", "-ex", "set non-stop off", "-x", str(script)],
                             capture_output=True, text=True, timeout=90)
        text = gdb.stdout + gdb.stderr
        assert "0xffffffff81000000:" in text, text
        assert "Cannot access memory" not in text, text
    finally:
        process.kill()
        process.wait()

"""The real gdb debugs a guest: registers, memory by virtual address, steps, breakpoints, watchpoints."""
import shutil
import signal
import subprocess
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, debian_arguments, wait_until_listening



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
        wait_until_listening(socket)
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
    serial = tmp_path / "serial"
    arguments = [str(a) for a in debian_arguments(task="idle", extra_command_line="nokaslr")]
    process = subprocess.Popen([str(BULKHEAD), *arguments, "--gdb", str(socket), "--serial", f"file:{serial}"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # Debian's vmlinux has no symbols; the first bytes of the kernel's text stand at a fixed address without KASLR.
    script = tmp_path / "script"
    script.write_text(f"""set pagination off
set confirm off
set architecture i386:x86-64
target remote {socket}
continue
info registers rip cr3
x/8xb 0xffffffff81000000
info threads
stepi
printf "STEPPED\\n"
# The way in of the local timer's interrupt has been translated long ago and comes by again: what the gate of vector 0xEC says, in
# the IDT at the place that the kernel shows it to programs at.
set $gate = 0xfffffe0000000000 + 0xec * 16
set $here = (unsigned long)*(unsigned short*)$gate + ((unsigned long)*(unsigned short*)($gate + 6) << 16)
set $here = $here + ((unsigned long)*(unsigned int*)($gate + 8) << 32)
hbreak *$here
continue
printf "BACK %d\\n", $rip == $here
delete
watch *(unsigned long*)($rsp - 64)
continue
printf "WRITTEN\\n"
monitor quit
""")
    try:
        wait_until_listening(socket)
    except AssertionError:
        process.kill()
        raise
    gdb = subprocess.Popen(["gdb", "-nx", "-batch", "-x", str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 90
        while "USER SPACE" not in (serial.read_text(errors="replace") if serial.exists() else ""):
            assert time.monotonic() < deadline and gdb.poll() is None, "the guest did not reach user space under gdb"
            time.sleep(0.2)
        gdb.send_signal(signal.SIGINT)
        text, _ = gdb.communicate(timeout=120)
        assert "0xffffffff81000000:" in text and "Cannot access memory" not in text, text
        assert "Thread 1" in text and "STEPPED" in text and "BACK 1" in text, text
        assert "New value" in text and "WRITTEN" in text, text
    finally:
        gdb.kill()
        process.kill()
        process.wait()

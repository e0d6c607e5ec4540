"""A running Debian guest is written to a file and goes on from it in another process."""
import signal
import subprocess
import time

from bulkhead import BULKHEAD, debian_arguments


def wait_until(condition, what, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_guest_goes_on_from_its_checkpoint(tmp_path):
    first_log, second_log, checkpoint = tmp_path / "first", tmp_path / "second", tmp_path / "checkpoint"
    arguments = [str(argument) for argument in debian_arguments(task="idle", memory="256M", cpus=2)]
    first = subprocess.Popen([str(BULKHEAD), *arguments, "--serial", f"file:{first_log}", "--checkpoint", str(checkpoint)],
                             stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: first_log.exists() and "USER SPACE REACHED" in first_log.read_text(), "the guest did not boot")
        first.send_signal(signal.SIGUSR1)
        wait_until(checkpoint.exists, "no checkpoint appeared")
        time.sleep(1)
        assert first.poll() is None, "the VM goes on after a checkpoint"
    finally:
        first.kill()
        first.wait()
    second = subprocess.Popen([str(BULKHEAD), *arguments, "--serial", f"file:{second_log}", "--restore", str(checkpoint)],
                              stdin=subprocess.DEVNULL)
    try:
        time.sleep(3)
        assert second.poll() is None, second_log.read_text()
        # The button reaches a shell that waits for it: kernel, interrupts, timers and user space all live on.
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=60) == 0, second_log.read_text()
        assert "Power down" in second_log.read_text()
        assert "Linux version" not in second_log.read_text(), "the guest booted instead of going on"
    finally:
        second.kill()
        second.wait()

"""Open vSwitch with its userspace datapath (DPDK) between two vhost-user ports, in a folder and processes of its own.

Needs root and the package openvswitch-switch-dpdk, and takes huge pages of the host while it runs."""
import contextlib
import pathlib
import shutil
import subprocess
import tempfile
import time

VSWITCHD = pathlib.Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
SCHEMA = pathlib.Path("/usr/share/openvswitch/vswitch.ovsschema")
HUGE_PAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
WANTED_PAGES = 700  # of 2 MiB: its buffers for 262,144 frames
PATIENCE_S = 60


class Missing(Exception):
    """It cannot run here; the text says why."""


@contextlib.contextmanager
def huge_pages():
    before = int(HUGE_PAGES.read_text())
    try:
        HUGE_PAGES.write_text(str(max(before, WANTED_PAGES)))
        if int(HUGE_PAGES.read_text()) < WANTED_PAGES:
            raise Missing(f"this host does not give {WANTED_PAGES} huge pages")
        yield
    except PermissionError as error:
        raise Missing(f"huge pages: {error}") from error
    finally:
        with contextlib.suppress(PermissionError):
            HUGE_PAGES.write_text(str(before))


@contextlib.contextmanager
def running():
    """Yields the sockets of its two ports."""
    if not VSWITCHD.exists():
        raise Missing("openvswitch-switch-dpdk is not installed")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="open-vswitch-"))
    environment = {"OVS_RUNDIR": str(folder), "OVS_LOGDIR": str(folder), "PATH": "/usr/sbin:/usr/bin"}
    database = f"unix:{folder}/db.sock"
    processes = []

    def start(*words):
        processes.append(subprocess.Popen([str(word) for word in words], env=environment, stdin=subprocess.DEVNULL,
                                          stdout=subprocess.DEVNULL, stderr=(folder / "errors").open("a")))

    def wait_for(*paths):
        end = time.monotonic() + PATIENCE_S
        while not all(path.exists() for path in paths):
            if time.monotonic() > end or any(process.poll() is not None for process in processes):
                raise Missing("it does not start: " + (folder / "errors").read_text()[-300:].strip())
            time.sleep(0.1)

    def vsctl(*words):
        subprocess.run(["ovs-vsctl", f"--db={database}", f"--timeout={PATIENCE_S}", *words], env=environment, check=True, timeout=2 * PATIENCE_S)

    try:
        with huge_pages():
            subprocess.run(["ovsdb-tool", "create", str(folder / "db"), str(SCHEMA)], env=environment, check=True, timeout=PATIENCE_S)
            start("ovsdb-server", folder / "db", f"--remote=p{database}")
            wait_for(folder / "db.sock")
            vsctl("--no-wait", "init")
            # One thread that polls, on the first processor; the two ends have the others.
            vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true", "other_config:dpdk-extra=--no-pci",
                  "other_config:pmd-cpu-mask=0x1")
            start(VSWITCHD, database)
            vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
            ports = [folder / "a", folder / "b"]
            for port in ports:
                vsctl("add-port", "br0", port.name, "--", "set", "Interface", port.name, "type=dpdkvhostuser")
            wait_for(*ports)
            yield ports
    except subprocess.SubprocessError as error:
        raise Missing(f"it does not start: {error}") from error
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder)

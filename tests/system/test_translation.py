"""What a user sees of translated code, and what a host may forbid."""
import ctypes
import pathlib
import re
import struct

from bulkhead import ROOT, debian_arguments, run, run_debian

# Names that docs/run.md promises to keep.
GROUPS = ["instructions", "exits.", "tlb.", "blocks.", "jit.", "slots."]


def counters(errors):
    """The first column of the table of --stats by name."""
    return {match[1]: int(match[2].replace(" ", ""))
            for match in re.finditer(r"^  ([a-z_]+(?:\.[a-z_0-9]+)*) +(\d{1,3}(?: \d{3})*)(?=  |$)", errors, re.MULTILINE)}


def test_statistics_tell_of_translation_tlb_slots_links_and_exits():
    result = run_debian(extra=["--stats"])
    assert result.status == 0, result.describe()
    found = counters(result.errors)
    for name in ["instructions", "tlb.fills", "tlb.flushes", "blocks.built", "jit.blocks", "jit.code_bytes", "jit.native_instructions",
                 "jit.links", "jit.entries", "jit.exits.attention", "jit.exits.edge", "jit.exits.dispatch", "jit.exits.fault",
                 "slots.places", "jit.handler", "jit.slow"]:
        assert found.get(name, 0) > 0, f"{name}: {result.describe()}"
    exits = sum(value for name, value in found.items() if name.startswith("jit.exits."))
    assert exits == found["jit.entries"], result.describe()
    assert found["instructions.interpreted"] < found["instructions"] / 2, result.describe()
    assert any(name.startswith("jit.handler.") for name in found), result.describe()
    text = (ROOT / "docs/run.md").read_text()
    for name in found:
        if name.startswith(tuple(GROUPS)) and not name.startswith(("jit.handler.", "jit.slow.")):
            assert f"`{name}`" in text, f"{name} is not explained in docs/run.md"


def test_every_block_is_traced_once_and_named_for_perf(tmp_path):
    trace = tmp_path / "trace"
    result = run_debian(extra=["--trace", "blocks", "--trace-file", trace, "--perf-map", "--stats"])
    assert result.status == 0, result.describe()
    path = re.search(r"perf map: (/tmp/perf-\d+\.map)", result.errors)
    assert path, result.describe()
    perf_map = pathlib.Path(path[1])
    lines = perf_map.read_text().splitlines()
    perf_map.unlink()
    translated = counters(result.errors)["jit.blocks"]
    assert len(lines) == translated + 1, result.describe()  # and the common code
    for line in lines:
        assert re.fullmatch(r"[0-9a-f]+ [0-9a-f]+ (guest_0x[0-9a-f]+(_user)?|bulkhead_common_cpu\d+)", line), line
    text = trace.read_text()
    blocks = re.findall(r"block (0x[0-9a-f]+) physical (0x[0-9a-f]+) cpl [03], (\d+) instructions in \d+ bytes, to \d+ bytes at 0x", text)
    left_out = sum(int(n) for n in re.findall(r"trace: (\d+) lines left out", text))
    found = counters(result.errors)
    again = found["slots.dropped"] + found["jit.flags_wanted"] + found["jit.flags_unwanted"]
    assert 0 <= translated - again - len(blocks) - left_out <= 20_000
    assert sum(int(block[2]) for block in blocks) == len(re.findall(r"^    0x[0-9a-f]+  [0-9a-f]{2} ", text, re.MULTILINE))


def forbid_executable_files():
    """From now on mmap() of a shared file for execution fails, as under SELinux without execmem: a seccomp filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    load, jump_equal, jump_set, ret = 0x20, 0x15, 0x45, 0x06
    filter_lines = [(load, 0, 0, 0),          # the number of the call
                    (jump_equal, 0, 5, 9),    # mmap
                    (load, 0, 0, 16 + 8 * 2),  # protection
                    (jump_set, 0, 3, 4),      # PROT_EXEC
                    (load, 0, 0, 16 + 8 * 3),  # flags
                    (jump_set, 0, 1, 1),      # MAP_SHARED
                    (ret, 0, 0, 0x00050000 | 13),  # EACCES
                    (ret, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("HBBI", *line) for line in filter_lines)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(filter_lines), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) == 0, ctypes.get_errno()


def test_a_host_without_executable_memory_gets_the_interpreter_and_is_told():
    result = run(debian_arguments(extra=["--stats"]), timeout=300, before=forbid_executable_files)
    assert result.status == 0 and "USER SPACE REACHED" in result.output, result.describe()
    assert "vCPU 0: no translation, the interpreter runs alone: executable memory for translated code" in result.errors
    found = counters(result.errors)
    assert found["instructions.interpreted"] > 1_000_000 and "jit.blocks" not in found, result.describe()


def test_a_code_cache_that_is_often_full_is_emptied_and_filled_again():
    result = run_debian(cpus=2, extra=["--code-cache", "1M", "--stats"])
    assert result.status == 0 and "USER SPACE REACHED" in result.output, result.describe()
    found = counters(result.errors)
    assert found["jit.resets"] > 2 and found["jit.code_bytes"] <= 2 << 20, result.describe()


def test_the_interpreter_alone_when_asked_for():
    result = run_debian(extra=["--jit", "off", "--stats"], timeout=300)
    assert result.status == 0 and "USER SPACE REACHED" in result.output, result.describe()
    assert "no translation" not in result.errors and "jit.blocks" not in counters(result.errors), result.describe()


def test_what_translates_nothing_says_so(tmp_path):
    result = run_debian(extra=["--trace", "blocks", "--trace-file", tmp_path / "trace", "--jit", "off"], timeout=300)
    assert "--trace blocks, --perf-map: this engine translates nothing" in result.errors, result.describe()
    assert (tmp_path / "trace").read_text() == ""

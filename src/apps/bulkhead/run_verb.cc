#include "apps/bulkhead/run_verb.h"

#include <atomic>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "support/os/hardening.h"
#include "support/os/thread.h"
#include "vmm/checkpoint.h"
#include "vmm/control_socket.h"
#include "vmm/gdb/server.h"
#include "vmm/signals.h"
#include "vmm/vm.h"

namespace bulkhead::apps {
namespace {

struct ValueFlag {
  const char* flag;
  const char* key;  // in vm.yaml
  bool is_list;
  const char* value_name;
  const char* group;
  const char* help;
};

constexpr ValueFlag kValueFlags[] = {
    {"--name", "metadata.name", false, "NAME", "Machine", "Name of the VM"},
    {"--cpus", "spec.cpus", false, "N", "Machine", "vCPUs, 1 to 16 (1)"},
    {"--cpu-model", "spec.cpu-model", false, "MODEL", "Machine", "x86-64-v1, x86-64-v2, x86-64-v3 or host (x86-64-v3)"},
    {"--memory", "spec.memory", false, "SIZE", "Machine", "Guest RAM, like 512M or 2G (512M)"},
    {"--engine", "spec.engine", false, "ENGINE", "Machine",
     "auto, kvm or soft; auto takes KVM when hardware backs it (auto)"},
    {"--jit", "spec.jit", false, "on|off", "Machine", "The soft engine translates code that runs often (on)"},
    {"--code-cache", "spec.code-cache", false, "SIZE", "Machine",
     "Memory for translated code, of each vCPU, as it fills (32M)"},
    {"--seed", "spec.seed", false, "N", "Machine", "Where all randomness of a deterministic run comes from (0)"},
    {"--kernel", "spec.boot.kernel", false, "FILE", "Boot", "Kernel: bzImage, ELF with a PVH note, or Multiboot"},
    {"--initrd", "spec.boot.initrd", false, "FILE", "Boot", "Initial RAM disk"},
    {"--cmdline", "spec.boot.cmdline", false, "TEXT", "Boot", "Kernel command line"},
    {"--module", "spec.boot.modules", true, "'FILE [TEXT]'", "Boot", "Multiboot module; may be given several times"},
    {"--boot-protocol", "spec.boot.protocol", false, "NAME", "Boot", "auto, linux64, linux32, pvh or multiboot (auto)"},
    {"--disk", "spec.disks", true, "FILE[,ro]|file=FILE,...", "Devices",
     "Disk image, with bus=nvme or bus=sata, format=qcow2, readonly, serial=, cache=, encrypt=, on-error=, queues=, "
     "iops=, bps=, group=, fault=, controller=; raw by default"},
    {"--disk-group", "spec.disk-groups", true, "NAME,iops=N,bps=SIZE", "Devices", "Limits that its disks share"},
    {"--cdrom", "spec.cdroms", true, "FILE.iso", "Devices", "A CD or DVD image in a drive on SATA"},
    {"--nic", "spec.nics", true, "WHERE", "Devices",
     "A network card: nat[,forward=tcp:127.0.0.1:8080:80][,host=on], tap=NAME, switch=NAME[,vlan=N], "
     "switch=DIR,port=NAME or switch=DIR,group=NAME (of 'bulkhead switch'), isolated, or none; then "
     "[,model=virtio|e1000|e1000e][,mac=ADDR][,mtu=N][,queues=N][,offloads=on|off][,rate=BITS[,burst=BYTES]]"},
    {"--serial", "spec.serial", true, "WHERE", "Devices",
     "COM1, then COM2 to COM4: stdio, pty, null, file:PATH or socket:PATH (stdio)"},
    {"--console", "spec.console", false, "WHERE", "Devices", "A virtio console; WHERE as for --serial"},
};

constexpr const char* kFooter =
    "Flags win over the file. At a terminal ^] (Ctrl and ]) begins a command: q ends the VM, p presses its power\n"
    "button, r resets it, c continues it when paused. SIGTERM and SIGINT press the power button, the second time they "
    "end the VM.\n"
    "\n"
    "Exit status: 0 power-off (or ended at the console), 2 wrong option, file or value, 4 host error,\n"
    "6 engine error, 10 reset with --no-reboot, 12 triple fault, 14 guest panic, 16 stopped by a second\n"
    "signal, 2 x value + 1 by the debug-exit port.\n"
    "\n"
    "Examples:\n"
    "  bulkhead run vm.yaml --memory 2G\n"
    "  bulkhead run --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' --cpus 2 --disk data.img\n"
    "  bulkhead run vm.yaml --nic nat,forward=tcp:127.0.0.1:8080:80\n"
    "  bulkhead run --kernel vmlinux --serial socket:/run/vm.sock --gdb localhost:1234";

// Writes checkpoints when asked to, one at a time, on a thread of its own: the consoles go on until the VM is at rest.
class Checkpointer {
 public:
  Checkpointer(std::string path, vmm::Vm& vm) : path_(std::move(path)), vm_(vm) {}

  // Always from the same thread. Asked while one is being written, does nothing.
  void request() {
    if (path_.empty()) return cli::print_message("SIGUSR1 makes a checkpoint only with --checkpoint");
    if (busy_.exchange(true)) return;
    thread_.join();
    thread_ = Thread("checkpoint", [this] {
      const auto written = vmm::write_checkpoint(path_, vm_);
      cli::print_message(written ? fmt::format("checkpoint '{}' written", path_) : written.error().message);
      busy_ = false;
    });
  }

 private:
  const std::string path_;
  vmm::Vm& vm_;
  std::atomic<bool> busy_{false};
  Thread thread_;
};

}  // namespace

void RunVerb::add_options(CLI::App& options) {
  options.footer(kFooter);
  options.add_option("file", file_, "The VM's description (vm.yaml); see docs/run.md")->type_name("FILE");
  for (const ValueFlag& flag : kValueFlags) {
    value_flags_[flag.flag] =
        options.add_option(flag.flag, flag.help)
            ->type_name(flag.value_name)
            ->group(flag.group)
            ->multi_option_policy(flag.is_list ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
  }
  options.add_flag("--no-reboot", no_reboot_, "End when the guest resets itself")->group("Machine");
  options
      .add_flag("--deterministic", deterministic_,
                "Every run the same: time from the instruction count, randomness from --seed, no input")
      ->group("Machine");
  options.add_flag("--debug-exit", debug_exit_, "A port 0xf4 that ends the VM with status 2 x value + 1")
      ->group("Devices");
  options.add_option("--control", control_, "Listen there for 'bulkhead pause' and 'bulkhead resume'; see docs/run.md")
      ->type_name("SOCKET")
      ->group("Insight");
  options.add_option("--restore", restore_, "Go on from a checkpoint instead of booting")
      ->type_name("FILE")
      ->group("Boot");
  options.add_option("--checkpoint", checkpoint_, "SIGUSR1 writes a checkpoint there, and the VM goes on")
      ->type_name("FILE")
      ->group("Insight");
  options
      .add_option("--gdb", gdb_, "Wait for gdb at HOST:PORT or a socket's PATH, stopped before the first instruction")
      ->type_name("ADDR")
      ->group("Insight");
  options.add_option("--trace", trace_, "Lines for exits, mmio, irq or blocks (several with commas) to standard error")
      ->type_name("WHAT")
      ->group("Insight");
  options.add_option("--trace-file", trace_file_, "Write the trace there instead")->type_name("FILE")->group("Insight");
  options
      .add_flag("--final-hash", final_hash_,
                "SHA-256 of RAM, vCPUs, devices and disks of a deterministic run at its end")
      ->group("Insight");
  options.add_flag("--perf-map", perf_map_, "Name translated code for Linux's perf in /tmp/perf-PID.map")
      ->group("Insight");
  options.add_flag("--stats", statistics_, "Counters of vCPUs, engine and consoles at the end")->group("Insight");
}

Result<vmm::VmConfig> RunVerb::read_config() const {
  vmm::VmConfig config;
  if (!file_.empty()) config = TRY(vmm::load_config(file_));
  for (const ValueFlag& flag : kValueFlags) {
    if (value_flags_.at(flag.flag)->count() == 0) continue;
    const std::vector<std::string>& values = value_flags_.at(flag.flag)->results();
    if (flag.is_list) {
      TRY(vmm::set_list(config, flag.key, values, flag.flag));
    } else {
      TRY(vmm::set_value(config, flag.key, values.back(), flag.flag));
    }
  }
  if (no_reboot_) config.reboot = {false, "--no-reboot"};
  if (deterministic_) config.deterministic = {true, "--deterministic"};
  if (debug_exit_) config.debug_exit = {true, "--debug-exit"};
  if (!gdb_.empty()) config.gdb = {gdb_, "--gdb"};
  if (!trace_.empty())
    config.trace = {TRY_IN(fmt::format("--trace '{}'", trace_), vmm::parse_trace(trace_)), "--trace"};
  if (!trace_file_.empty()) config.trace_file = {trace_file_, "--trace-file"};
  config.statistics = statistics_;
  config.perf_map = perf_map_;
  config.final_hash = final_hash_;
  const bool terminal_taken = config.virtio_console.value.kind == console::Spec::Kind::kStdio;
  if (config.serial_lines.empty() && !terminal_taken) {
    config.serial_lines.push_back({{console::Spec::Kind::kStdio, {}}, {}});
  }
  TRY(vmm::check_config(config));
  return config;
}

Result<vmm::Outcome> RunVerb::run_vm(const vmm::VmConfig& config, std::string& statistics) const {
  const auto vm = TRY(vmm::Vm::create(config, vmm::EngineSources::of_this_host()));
  if (!restore_.empty()) TRY_IN(fmt::format("--restore '{}'", restore_), vmm::read_checkpoint(restore_, *vm));
  TRY(vm->register_memory());
  std::unique_ptr<vmm::gdb::Server> debugger;
  if (config.gdb.given()) {
    debugger = TRY_IN(config.gdb.label(config.gdb.value), vmm::gdb::Server::create(config.gdb.value, *vm));
    cli::print_message(fmt::format("waiting for gdb: target remote {}", config.gdb.value));
  }
  std::unique_ptr<vmm::ControlSocket> control;
  if (!control_.empty()) {
    control = TRY_IN(fmt::format("--control '{}'", control_), vmm::ControlSocket::create(control_, *vm));
  }
  Checkpointer checkpointer(checkpoint_, *vm);
  const auto signals = TRY(vmm::Signals::create(vm->loop(), {.on_shut_down = [&vm] { vm->driver().shut_down(); },
                                                             .on_continued = [&vm] { vm->on_continued(); },
                                                             .on_checkpoint = [&] { checkpointer.request(); }}));
  for (const std::string& notice : vm->notices()) cli::print_message(notice);
  vm->start();
  vmm::Outcome outcome = vm->driver().wait();
  if (debugger) debugger->finish(outcome);
  debugger.reset();
  vm->finish();
  if (config.statistics) statistics = vm->statistics();
  if (config.final_hash) statistics += fmt::format("final hash: {}\n", TRY(vm->state_hash()));
  return outcome;
}

int RunVerb::run() {
  const auto config = read_config();
  if (!config) {
    cli::print_message(config.error().message);
    return cli::kUsageErrorStatus;
  }
  (void)forbid_writable_code();  // kernels before 6.3 do not know it
  std::string statistics;
  const auto outcome = run_vm(*config, statistics);
  std::fputs(statistics.c_str(), stderr);
  if (!outcome) {
    cli::print_message(outcome.error().message);
    return cli::kUsageErrorStatus;
  }
  if (outcome->kind != vmm::Outcome::Kind::kPowerOff) cli::print_message(outcome->line());
  return outcome->exit_status();
}

}  // namespace bulkhead::apps

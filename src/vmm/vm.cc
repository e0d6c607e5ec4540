#include "vmm/vm.h"

#include <algorithm>

#include "support/log.h"
#include "support/os/fd.h"
#include "support/os/unused_memory.h"
#include "support/sha256.h"

namespace bulkhead::vmm {
namespace {

// How long a console that takes nothing may keep the end of a VM waiting.
constexpr std::chrono::milliseconds kFlushPatience{10'000};

int hex_digit(char c) {
  return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

// The configured UUID, or one made from the name, so that a VM keeps its identity from run to run.
std::array<uint8_t, 16> machine_uuid(const VmConfig& config) {
  std::array<uint8_t, 16> uuid{};
  if (!config.uuid.value.empty()) {
    size_t digit = 0;
    for (const char c : config.uuid.value) {
      if (c == '-') continue;
      uuid[digit / 2] = static_cast<uint8_t>(uuid[digit / 2] << 4 | hex_digit(c));
      ++digit;
    }
    return uuid;
  }
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : config.name.value) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  SeededRandom(hash).fill(uuid);
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0F) | 0x80);  // version 8: made by a rule of our own (RFC 9562)
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3F) | 0x80);
  return uuid;
}

// A locally administered address that a VM's card keeps from run to run, and that another VM's hardly has.
net::frame::MacAddress card_address(const std::array<uint8_t, 16>& uuid, size_t index) {
  net::frame::MacAddress address;
  SeededRandom(load<uint64_t>(uuid.data()) ^ load<uint64_t>(uuid.data() + 8) ^ (index + 1)).fill(address.bytes);
  address.bytes[0] = static_cast<uint8_t>((address.bytes[0] & 0xFC) | 2);
  return address;
}

machine::boot::Protocol boot_protocol(const std::string& name) {
  using machine::boot::Protocol;
  if (name == "linux64") return Protocol::kLinux64;
  if (name == "linux32") return Protocol::kLinux32;
  if (name == "pvh") return Protocol::kPvh;
  if (name == "multiboot") return Protocol::kMultiboot;
  return Protocol::kAutomatic;
}

ByteSpan bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

Result<std::unique_ptr<Vm>> Vm::create(const VmConfig& config, const EngineSources& sources) {
  std::unique_ptr<Vm> vm(new Vm(config));
  vm->memory_ = TRY_IN(config.memory_bytes.label(std::to_string(config.memory_bytes.value)),
                       memory::GuestMemory::create(config.memory_bytes.value));
  TRY(vm->make_engine(sources));
  TRY(vm->open_disks());
  TRY(vm->open_links());
  TRY(vm->open_consoles());
  TRY(vm->make_machine());
  TRY(vm->make_driver());
  TRY(vm->power_on());
  return vm;
}

Vm::~Vm() {
  finish();
  disk_jobs_.reset();  // they call devices
}

void Vm::start_consoles() {
  loop_thread_ = Thread("console", [this] { loop_->run(); });
}

void Vm::start() {
  start_consoles();
  driver_->start();
}

// First the guest stops for good, then what it wrote leaves, then the loop ends.
void Vm::finish() {
  if (driver_) {
    driver_->quit();
    driver_->wait();
  }
  if (!loop_thread_.joinable()) return;
  for (auto& line : serial_) {
    if (line) line->flush(kFlushPatience);
  }
  if (virtio_console_) virtio_console_->flush(kFlushPatience);
  loop_->stop();
  loop_thread_.join();
}

Result<> Vm::make_engine(const EngineSources& sources) {
  choice_ = deterministic() ? EngineChoice{sources.make_soft(), {}} : TRY(choose_engine(config_.engine, sources));
  auto model = cpu::CpuModel::create(config_.cpu_model.value, choice_.backend->available_features());
  if (!model) return fail("{}: {}", config_.cpu_model.label(config_.cpu_model.value), model.error().message);
  model_ = std::make_unique<cpu::CpuModel>(std::move(*model));
  if (deterministic()) {
    counted_clock_ = std::make_unique<CountedClock>();
    clock_ = counted_clock_.get();
    random_ = std::make_unique<SeededRandom>(config_.seed.value);
  } else {
    host_clock_ = std::make_unique<HostClock>(choice_.backend->clock_source());
    clock_ = host_clock_.get();
    random_ = std::make_unique<HostRandom>();
  }
  TRY(make_tracer());
  engine_ = TRY(choice_.backend->create({.memory = *memory_,
                                         .clock = *clock_,
                                         .random = *random_,
                                         .model = *model_,
                                         .vcpu_count = config_.cpus.value,
                                         .counted = deterministic(),
                                         .translate = config_.jit.value,
                                         .code_cache_bytes = config_.code_cache_bytes.value,
                                         .watcher = translation_log_.get()}));
  return {};
}

Result<> Vm::make_tracer() {
  const TraceConfig& trace = config_.trace.value;
  if (trace.any()) {
    tracer_ =
        TRY_IN(config_.trace_file.label(config_.trace_file.value), Tracer::create(config_.trace_file.value, *clock_));
  }
  if (!trace.blocks && !config_.perf_map) return {};
  translation_log_ =
      TRY_IN("--perf-map", TranslationLog::create(trace.blocks ? tracer_.get() : nullptr,
                                                  config_.perf_map ? TranslationLog::perf_map_path() : std::string()));
  return {};
}

Result<> Vm::open_disks() {
  disks_ = TRY(Disks::open(config_, [this](const std::string& message) { on_disk_error(message); }));
  disk_jobs_ = std::make_unique<DiskJobs>(config_, *disks_, [this](size_t index) { machine_->disk_grew(index); });
  return {};
}

// Not before what is restored is there, which gets pages of its own.
Result<> Vm::register_memory() {
  const std::array<MutableByteSpan, 2> ram{
      MutableByteSpan(memory_->host_base(), memory_->low_size()),
      MutableByteSpan(memory_->host_base() + memory::GuestMemory::kHoleEnd, memory_->high_size())};
  return disks_->register_memory(config_, ram);
}

net::frame::MacAddress Vm::mac_of_card(size_t index) const {
  const NicConfig& nic = config_.nics[index].value;
  return nic.mac ? *nic.mac : card_address(machine_uuid(config_), index);
}

Result<> Vm::open_links() {
  fabrics_ = std::make_unique<net::link::Fabrics>(*clock_, *random_);
  for (size_t i = 0; i < config_.nics.size(); ++i) {
    const auto& nic = config_.nics[i];
    auto link = net::link::open_link(nic.value.link, mac_of_card(i), *fabrics_);
    if (!link) return fail("{}: {}", nic.label(nic.value.text), link.error().message);
    links_.push_back(std::make_unique<net::link::Cable>(std::move(*link)));
    const net::link::RateConfig& rate = nic.value.rate;
    const bool is_limited = rate.bytes_a_second != 0;
    rates_.push_back(is_limited ? std::make_unique<net::link::RateLimited>(*links_.back(), rate, *clock_) : nullptr);
  }
  return {};
}

Result<> Vm::open_consoles() {
  loop_ = TRY(EventLoop::create());
  const auto open = [this](const Setting<console::Spec>& setting) -> Result<std::unique_ptr<console::Backend>> {
    return TRY_IN(setting.label(console::to_string(setting.value)),
                  console::open_backend(setting.value, *loop_,
                                        [this](console::TerminalCommand command) { on_terminal_command(command); }));
  };
  for (size_t i = 0; i < config_.serial_lines.size(); ++i) serial_[i] = TRY(open(config_.serial_lines[i]));
  if (config_.virtio_console.given()) virtio_console_ = TRY(open(config_.virtio_console));
  for (size_t i = 0; i < serial_.size(); ++i) {
    if (serial_[i]) panic_watches_[i] = std::make_unique<PanicWatch>(*guest_end(serial_[i].get()));
  }
  return {};
}

console::ByteStream* Vm::guest_end(console::Backend* backend) {
  if (backend == nullptr || !deterministic()) return backend;
  return output_only_.emplace_back(std::make_unique<OutputOnly>(*backend)).get();
}

Result<> Vm::make_machine() {
  machine::MachineConfig machine_config{.vcpu_count = config_.cpus.value,
                                        .uuid = machine_uuid(config_),
                                        .serial_number = config_.name.value,
                                        .debug_exit = config_.debug_exit.value};
  if (deterministic()) machine_config.device_work = machine::DeviceWork::kWhenCalled;
  machine::Wires wires{.memory = *memory_, .clock = *clock_, .random = *random_, .power = power_};
  for (size_t i = 0; i < serial_.size(); ++i) wires.serial[i] = panic_watches_[i].get();
  wires.virtio_console = guest_end(virtio_console_.get());
  for (size_t i = 0; i < disks_->size(); ++i) {
    const DiskConfig& disk = config_.disks[i].value;
    const uint32_t queue_count = disk.queue_count != 0 ? disk.queue_count : config_.cpus.value;
    wires.disks.push_back({(*disks_)[i], disk.serial.empty() ? fmt::format("disk{}", i) : disk.serial, disk.bus,
                           disk.medium, static_cast<uint16_t>(std::min<uint32_t>(queue_count, DiskConfig::kMostQueues)),
                           disk.controller});
  }
  for (size_t i = 0; i < links_.size(); ++i) {
    const NicConfig& nic = config_.nics[i].value;
    wires.nics.push_back({rates_[i] ? static_cast<net::Port&>(*rates_[i]) : *links_[i],
                          mac_of_card(i),
                          {.mtu = nic.mtu, .queue_pairs = nic.queue_pairs, .offloads = nic.offloads},
                          nic.model});
  }
  machine_ = TRY(machine::Machine::create(std::move(machine_config), wires));
  for (uint32_t i = 0; i < config_.cpus.value; ++i) machine_->connect_vcpu(i, engine_->vcpu(i));
  if (machine::DoorbellHost* host = engine_->doorbell_host()) machine_->set_doorbell_host(*host);
  return {};
}

Result<> Vm::make_driver() {
  std::vector<VcpuSlot> slots;
  for (uint32_t i = 0; i < config_.cpus.value; ++i) {
    cpu::CpuIo* io = &machine_->cpu_io(i);
    if (tracer_) {
      tracing_.push_back(std::make_unique<TracingCpuIo>(*io, *tracer_, config_.trace.value, i));
      io = tracing_.back().get();
    }
    slots.push_back({engine_->vcpu(i), *io});
  }
  if (deterministic()) {
    std::vector<Turns::Seat> seats;
    for (uint32_t i = 0; i < config_.cpus.value; ++i) seats.push_back({*engine_->counted_vcpu(i), slots[i].io});
    turns_ = std::make_unique<Turns>(std::move(seats), *counted_clock_, [this] { machine_->do_device_work(); });
    slots.clear();
    slots.push_back({*turns_, machine_->cpu_io(0)});
  }
  driver_ = std::make_unique<StateDriver>(*this, std::move(slots), StateDriver::Policy{.reboot = config_.reboot.value});
  power_.connect(*driver_, turns_.get());
  return {};
}

// The files are read again at every reset: RAM is the guest's, and what they need until then is not kept.
Result<> Vm::power_on() {
  TRY(load_guest());
  give_back_unused_memory();
  return {};
}

Result<> Vm::load_guest() {
  const auto read = [this](const Setting<std::string>& setting) -> Result<std::string> {
    auto bytes = read_file(setting.value, memory_->size());
    if (!bytes) return fail("{}: {}", setting.label(setting.value), bytes.error().message);
    return bytes;
  };
  const std::string kernel = TRY(read(config_.kernel));
  std::string initrd;
  std::vector<std::string> modules;
  machine::boot::Request request{.kernel_name = config_.kernel.value,
                                 .kernel = bytes_of(kernel),
                                 .command_line = config_.command_line.value,
                                 .modules = {},
                                 .protocol = boot_protocol(config_.boot_protocol.value)};
  if (config_.initrd.given()) {
    initrd = TRY(read(config_.initrd));
    request.modules.push_back({config_.initrd.value, {}, bytes_of(initrd)});
  }
  modules.reserve(config_.modules.size());
  for (const auto& module : config_.modules) {
    modules.push_back(TRY(read({module.value.path, module.place})));
    request.modules.push_back({module.value.path, module.value.command_line, bytes_of(modules.back())});
  }
  TRY(machine_->start(request));
  return {};
}

Result<> Vm::reset() {
  for (auto& watch : panic_watches_) {
    if (!watch) continue;
    if (const auto message = watch->message()) log::warning("the guest panicked: {}", *message);
    watch->forget();
  }
  log::info("reset");
  if (turns_) turns_->thaw();
  return power_on();
}

// Timers first: one that fires could give a device work.
void Vm::pause() {
  if (host_clock_) host_clock_->pause();
  machine_->pause();
}

void Vm::resume() {
  {
    const LockGuard lock(disk_error_mutex_);
    disk_error_.clear();
  }
  machine_->resume();
  if (host_clock_) host_clock_->resume();
}

// From a disk's thread or a device's, as often as there are requests that fail.
void Vm::on_disk_error(const std::string& message) {
  bool first = false;
  {
    const LockGuard lock(disk_error_mutex_);
    first = disk_error_.empty();
    if (first) disk_error_ = message;
  }
  if (first) log::error("paused: {}; it goes on after 'bulkhead resume' or ^] c", message);
  driver_->pause_for_disk();
}

bool Vm::plug_card(size_t index, bool plugged) {
  if (index >= links_.size()) return false;
  links_[index]->set_plugged(plugged);
  return true;
}

std::string Vm::status() {
  using Holder = StateDriver::Holder;
  if (driver_->ended()) return "ended";
  if (driver_->held_by(Holder::kDisk)) {
    const LockGuard lock(disk_error_mutex_);
    if (!disk_error_.empty()) return "paused: " + disk_error_;
  }
  const bool held = driver_->held_by(Holder::kUser) || driver_->held_by(Holder::kDebugger) ||
                    driver_->held_by(Holder::kStart) || driver_->held_by(Holder::kDisk);
  return held ? "paused" : "running";
}

std::optional<std::string> Vm::panic_message() {
  for (auto& watch : panic_watches_) {
    if (!watch) continue;
    if (auto message = watch->message()) return message;
  }
  return std::nullopt;
}

std::vector<std::string> Vm::notices() const {
  std::vector<std::string> lines;
  if (!choice_.reason.empty()) lines.push_back(choice_.reason);
  const bool translates = engine_name() == "soft" && config_.jit.value;
  if (config_.perf_map && translates) lines.push_back(fmt::format("perf map: {}", TranslationLog::perf_map_path()));
  if (translation_log_ && !translates) lines.emplace_back("--trace blocks, --perf-map: this engine translates nothing");
  for (size_t i = 0; i < serial_.size(); ++i) {
    if (serial_[i] && !serial_[i]->notice().empty())
      lines.push_back(fmt::format("COM{}: {}", i + 1, serial_[i]->notice()));
  }
  if (virtio_console_ && !virtio_console_->notice().empty()) {
    lines.push_back(fmt::format("virtio console: {}", virtio_console_->notice()));
  }
  return lines;
}

void Vm::on_terminal_command(console::TerminalCommand command) {
  switch (command) {
    case console::TerminalCommand::kHelp:
      log::info("{}", console::EscapeKey::kHelp);
      break;
    case console::TerminalCommand::kQuit:
      driver_->quit();
      break;
    case console::TerminalCommand::kPowerButton:
      driver_->press_power_button();
      break;
    case console::TerminalCommand::kReset:
      driver_->reset();
      break;
    case console::TerminalCommand::kContinue:
      driver_->resume();
      break;
  }
}

void Vm::on_continued() {
  for (auto& line : serial_) {
    if (line) line->on_continued();
  }
  if (virtio_console_) virtio_console_->on_continued();
}

std::string Vm::statistics() {
  std::vector<cpu::Statistics> vcpus;
  for (uint32_t i = 0; i < config_.cpus.value; ++i) vcpus.push_back(engine_->vcpu(i).statistics());
  std::vector<StatisticsSection> others;
  others.push_back({fmt::format("engine {}", engine_name()), {{"guest milliseconds", clock_->now_ns() / 1'000'000}}});
  for (auto& [name, value] : engine_->statistics()) others.back().values.emplace_back(name, value);
  const auto add_console = [&others](std::string title, const console::Backend* backend) {
    if (backend == nullptr) return;
    const console::StreamCounters counters = backend->counters();
    others.push_back({std::move(title),
                      {{"bytes from guest", counters.bytes_from_guest},
                       {"bytes to guest", counters.bytes_to_guest},
                       {"bytes dropped", counters.bytes_dropped}}});
  };
  for (size_t i = 0; i < serial_.size(); ++i) add_console(fmt::format("COM{}", i + 1), serial_[i].get());
  add_console("virtio console", virtio_console_.get());
  for (size_t i = 0; i < disks_->size(); ++i) {
    const block::MeteredDisk::Counts counts = (*disks_)[i].counts();
    StatisticsSection& section = others.emplace_back(fmt::format("disk {}", i), cpu::Statistics{});
    for (size_t operation = 0; operation < counts.requests.size(); ++operation) {
      const auto name = block::to_string(static_cast<block::Operation>(operation));
      section.values.emplace_back(fmt::format("{} requests", name), counts.requests[operation]);
      if (static_cast<block::Operation>(operation) != block::Operation::kFlush) {
        section.values.emplace_back(fmt::format("{} bytes", name), counts.bytes[operation]);
      }
      const block::LatencyHistogram::Summary& latency = counts.latency[operation];
      if (latency.count == 0) continue;
      section.values.emplace_back(fmt::format("{} p50 microseconds", name), latency.p50_ns / 1000);
      section.values.emplace_back(fmt::format("{} p99 microseconds", name), latency.p99_ns / 1000);
      section.values.emplace_back(fmt::format("{} p99.9 microseconds", name), latency.p999_ns / 1000);
      section.values.emplace_back(fmt::format("{} max microseconds", name), latency.max_ns / 1000);
    }
    section.values.emplace_back("errors", counts.errors);
    section.values.emplace_back("put off", counts.put_off);
    section.values.emplace_back("in flight", counts.in_flight);
  }
  const std::vector<device::virtio::NetCounters> cards = machine_->nic_counters();
  for (size_t i = 0; i < cards.size(); ++i) {
    others.push_back({fmt::format("network card {}", i),
                      {{"frames from guest", cards[i].sent_frames},
                       {"bytes from guest", cards[i].sent_bytes},
                       {"frames to guest", cards[i].received_frames},
                       {"bytes to guest", cards[i].received_bytes},
                       {"frames refused", cards[i].refused_frames},
                       {"frames too large", cards[i].too_large_frames},
                       {"frames dropped", links_[i]->counters().to_guest_dropped}}});
  }
  return format_statistics(vcpus, others);
}

Result<std::string> Vm::state_hash() {
  Sha256 hash;
  hash.update({memory_->host_base(), memory_->low_size()});
  hash.update({memory_->host_base() + memory::GuestMemory::kHoleEnd, memory_->high_size()});
  StateWriter writer;
  TRY(save(writer));
  hash.update(writer.encode());
  std::vector<uint8_t> piece(1 << 20);
  for (size_t i = 0; i < disks_->size(); ++i) {
    const uint64_t size = (*disks_)[i].geometry().size;
    for (uint64_t offset = 0; offset < size; offset += piece.size()) {
      const MutableByteSpan bytes(piece.data(), std::min<uint64_t>(piece.size(), size - offset));
      std::optional<block::Status> status;
      (*disks_)[i].submit(block::Request::read(offset, {bytes}, [&](block::Status result) { status = result; }));
      CHECK(status.has_value(), "the disks of a deterministic VM answer at once");
      if (*status != block::Status::kOk) {
        return fail("{}: {} at byte {}", config_.disks[i].label(config_.disks[i].value.path), to_string(*status),
                    offset);
      }
      hash.update(bytes);
    }
  }
  return hash.finish();
}

Result<> Vm::save(StateWriter& writer) {
  {
    const LockGuard lock(disk_error_mutex_);
    // A request that is to be repeated is in nobody's state.
    if (!disk_error_.empty()) return fail("the machine waits for a disk: {}", disk_error_);
  }
  writer.put("vcpu_count", config_.cpus.value).put("memory_bytes", memory_->size()).put("now_ns", clock_->now_ns());
  writer.put("tsc", clock_->tsc());
  writer.put_bytes("cpu_model", bytes_of(config_.cpu_model.value));
  for (uint32_t i = 0; i < config_.cpus.value; ++i) {
    StateWriter child = writer.child(fmt::format("vcpu{}", i));
    cpu::save(engine_->vcpu(i).get_state(), child);
  }
  StateWriter board = writer.child("machine");
  machine_->save_state(board);
  return {};
}

Result<> Vm::restore(const StateReader& reader) {
  if (const uint64_t count = TRY(reader.get("vcpu_count")); count != config_.cpus.value) {
    return fail("{}: saved with {} vCPUs, not {}", reader.path(), count, config_.cpus.value);
  }
  if (const uint64_t size = TRY(reader.get("memory_bytes")); size != memory_->size()) {
    return fail("{}: saved with {} bytes of memory, not {}", reader.path(), size, memory_->size());
  }
  const ByteSpan model = TRY(reader.get_bytes_up_to("cpu_model", 64));
  if (!std::ranges::equal(model, bytes_of(config_.cpu_model.value))) {
    return fail("{}: saved with the CPU model '{}', not '{}'", reader.path(),
                std::string_view(reinterpret_cast<const char*>(model.data()), model.size()), config_.cpu_model.value);
  }
  const uint64_t now_ns = TRY(reader.get("now_ns", UINT64_MAX / 4));
  if (counted_clock_) counted_clock_->set_now_ns(now_ns);
  if (host_clock_) host_clock_->set_now_ns(now_ns);
  const uint64_t tsc = TRY(reader.get("tsc"));
  std::vector<uint64_t> tsc_offsets;
  for (uint32_t i = 0; i < config_.cpus.value; ++i) {
    cpu::State state = TRY(cpu::restore(TRY(reader.child(fmt::format("vcpu{}", i)))));
    // This host's counter may run at another rate; the guest's goes on from where it stood.
    state.tsc_offset += tsc - clock_->tsc();
    tsc_offsets.push_back(state.tsc_offset);
    TRY(engine_->vcpu(i).set_state(state));
  }
  TRY(machine_->restore_state(TRY(reader.child("machine"))));
  for (uint32_t i = 0; i < config_.cpus.value; ++i) machine_->cpu_io(i).set_tsc_offset(tsc_offsets[i]);
  return {};
}

}  // namespace bulkhead::vmm

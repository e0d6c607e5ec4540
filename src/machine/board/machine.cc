#include "machine/board/machine.h"

#include "machine/board/board.h"
#include "machine/boot/entry_state.h"
#include "support/check.h"

namespace bulkhead::machine {
namespace {

// Holds the devices' own threads still.
template <typename Board>
class AtRest {
 public:
  explicit AtRest(Board& board) : board_(board), was_paused_(board.is_paused()) { board_.pause(); }
  ~AtRest() {
    if (!was_paused_) board_.resume();
  }
  AtRest(const AtRest&) = delete;
  AtRest& operator=(const AtRest&) = delete;

 private:
  Board& board_;
  const bool was_paused_;
};

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(MachineConfig config, const Wires& wires) {
  if (config.vcpu_count == 0 || config.vcpu_count > kMaximumVcpuCount) {
    return fail("{} vCPUs are not between 1 and {}", config.vcpu_count, kMaximumVcpuCount);
  }
  auto board = std::make_unique<Board>(std::move(config), wires);
  TRY(board->add_queue_devices());
  return std::unique_ptr<Machine>(new Machine(std::move(board)));
}

Machine::Machine(std::unique_ptr<Board> board) : board_(std::move(board)) {}

Machine::~Machine() = default;

void Machine::connect_vcpu(uint32_t index, cpu::Vcpu& vcpu) {
  board_->interrupts.pins(index).connect(vcpu);
}

void Machine::set_doorbell_host(DoorbellHost& host) {
  board_->pci.set_doorbell_host(host);
}

uint32_t Machine::vcpu_count() const {
  return board_->interrupts.vcpu_count();
}

cpu::CpuIo& Machine::cpu_io(uint32_t index) {
  return board_->interrupts.cpu_port(index);
}

Result<boot::Protocol> Machine::start(const boot::Request& kernel) {
  Board& board = *board_;
  for (device::Device* device : board.devices()) device->reset();
  board.set_up_chipset();
  board.firmware.offer_kernel(board.fw_cfg, kernel);
  TRY(board.firmware.write_tables());
  TRY(board.pci.assign_resources(board.wires.memory));

  const boot::Started started =
      TRY(boot::load_kernel(kernel, {board.wires.memory, board.firmware.memory_map(), board.firmware.rsdp_address()}));
  for (uint32_t i = 0; i < vcpu_count(); ++i) {
    cpu::Vcpu* vcpu = board.interrupts.pins(i).vcpu();
    if (vcpu == nullptr) continue;
    cpu::State state = i == 0 ? started.state : cpu::reset_state(i);
    boot::set_memory_types(state);
    TRY_IN(fmt::format("vCPU {}", i), vcpu->set_state(state));
    board.interrupts.cpu_port(i).set_tsc_offset(state.tsc_offset);
  }
  return started.protocol;
}

void Machine::do_device_work() {
  for (device::virtio::ManualWorker* worker : board_->manual_workers) worker->run();
}

void Machine::disk_grew(size_t index) {
  board_->disk_grew[index]();
}

void Machine::pause() {
  board_->pause();
}

void Machine::resume() {
  board_->resume();
}

void Machine::press_power_button() {
  board_->power_management.press_power_button();
}

void Machine::raise_nmi() {
  board_->interrupts.raise_nmi();
}

void Machine::save_state(StateWriter& writer) const {
  const AtRest rest(*board_);
  const std::vector<device::Device*> devices = board_->devices();
  writer.put("device_count", devices.size());
  for (const device::Device* device : devices) {
    StateWriter child = writer.child(device->name());
    device->save_state(child);
  }
}

// Everything is reset first, so that no device drives a line that its state does not.
Result<> Machine::restore_state(const StateReader& reader) {
  const std::vector<device::Device*> devices = board_->devices();
  const uint64_t device_count = TRY(reader.get("device_count"));
  if (device_count != devices.size()) {
    return fail("{}: has {} devices but this machine {}", reader.path(), device_count, devices.size());
  }
  const AtRest rest(*board_);
  for (device::Device* device : devices) device->reset();
  for (uint32_t i = 0; i < vcpu_count(); ++i) {
    cpu::Vcpu* vcpu = board_->interrupts.pins(i).vcpu();
    if (vcpu != nullptr) board_->interrupts.cpu_port(i).set_tsc_offset(vcpu->get_state().tsc_offset);
  }
  for (device::Device* device : devices) TRY(device->restore_state(TRY(reader.child(device->name()))));
  return {};
}

std::vector<device::virtio::NetCounters> Machine::nic_counters() const {
  std::vector<device::virtio::NetCounters> all;
  for (const auto& counters : board_->nic_counters) all.push_back(counters());
  return all;
}

device::interrupt::IoApic& Machine::io_apic() {
  return board_->interrupts.io_apic();
}

std::vector<std::string> Machine::describe_bus() const {
  std::vector<std::string> lines;
  const BusMap map = board_->bus.map();
  for (const MmioRange& range : map.mmio->ranges()) {
    lines.push_back(fmt::format("memory {:#012x}-{:#012x} {}", range.first, range.first + range.size - 1, range.owner));
  }
  for (const PortRange& range : map.ports->ranges()) {
    lines.push_back(fmt::format("ports {:#06x}-{:#06x} {}", range.first, range.first + range.count - 1, range.owner));
  }
  return lines;
}

}  // namespace bulkhead::machine

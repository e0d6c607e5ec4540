// The PC: every device, wired. It owns the devices, the bus and the ways in of its vCPUs; it owns no thread, no vCPU
// and nothing of the host, all of which come in through its Wires. Built once and never changed; a reset puts it back.
//
//   auto machine = TRY(Machine::create(config, wires));
//   machine->connect_vcpu(i, vcpu);            // each, before anything runs
//   TRY(machine->start(kernel));               // power-on, and again after every reset
//   vcpu.run(machine->cpu_io(i));              // on each vCPU's thread
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "console/byte_stream.h"
#include "cpu/cpu_io.h"
#include "cpu/vcpu.h"
#include "device/interrupt/io_apic.h"
#include "device/virtio/net/net.h"
#include "device/wires.h"
#include "machine/board/address_map.h"
#include "machine/board/disk_wires.h"
#include "machine/board/doorbell_host.h"
#include "machine/boot/boot.h"
#include "memory/guest_memory.h"
#include "net/frame/address.h"
#include "net/port.h"
#include "support/random.h"
#include "support/result.h"
#include "support/state/state.h"
#include "support/time/clock.h"

namespace bulkhead::machine {

inline constexpr size_t kSerialPortCount = 4;

// The card that the guest finds.
enum class NicModel : uint8_t {
  kVirtio,
  kE1000,   // Intel's 82540EM; of the settings it has the MTU
  kE1000e,  // Intel's 82574L, the same
};

struct NicWires {
  net::Port& port;
  net::frame::MacAddress mac;
  device::virtio::NetSettings settings;
  NicModel model = NicModel::kVirtio;
};

// Where devices with queues carry out what the guest put there: on threads of their own, or in do_device_work() alone.
enum class DeviceWork : uint8_t { kOnThreads, kWhenCalled };

struct MachineConfig {
  uint32_t vcpu_count = 1;         // 1 to kMaximumVcpuCount
  std::array<uint8_t, 16> uuid{};  // what SMBIOS says; bytes as a UUID is written
  std::string serial_number;       // the same; the VM's name is a good one
  bool debug_exit = false;         // the debug-exit port at 0xF4
  DeviceWork device_work = DeviceWork::kOnThreads;
};

// What the machine is connected to. Everything outlives it.
struct Wires {
  memory::GuestMemory& memory;
  Clock& clock;
  RandomSource& random;
  device::PowerControl& power;
  std::array<console::ByteStream*, kSerialPortCount> serial{};  // COM1 to COM4; null: nobody at the far end
  console::ByteStream* debug_console = nullptr;                 // port 0xE9
  console::ByteStream* virtio_console = nullptr;                // null: there is none
  std::vector<DiskWires> disks;
  std::vector<NicWires> nics;
  // The host kernel's local APICs, when they live there: messages go to it and the machine makes none of its own.
  device::MessageSink* host_local_apics = nullptr;
};

class Machine {
 public:
  // Fails for what the user asked for and cannot have; the error names it.
  static Result<std::unique_ptr<Machine>> create(MachineConfig config, const Wires& wires);
  ~Machine();

  // Gives the vCPU its pins; it must outlive the machine's last use. Once for each, before start().
  void connect_vcpu(uint32_t index, cpu::Vcpu& vcpu);
  // Has an engine ring the devices' doorbells without the board; it must outlive the machine's last use. Before
  // start().
  void set_doorbell_host(DoorbellHost& host);
  [[nodiscard]] uint32_t vcpu_count() const;
  // For the vCPU's own thread.
  [[nodiscard]] cpu::CpuIo& cpu_io(uint32_t index);

  // Power-on and reset, while no vCPU runs: resets every device, sets up what firmware would, loads the kernel and
  // gives each vCPU its first state. Answers by which protocol the kernel starts.
  Result<boot::Protocol> start(const boot::Request& kernel);

  // As by the front panel; from any thread.
  void press_power_button();
  void raise_nmi();

  // With DeviceWork::kWhenCalled: carries out all that is to be done, on the calling thread; nothing otherwise. Not
  // from within a call of a device.
  void do_device_work();

  // Work of devices on their own threads stops and goes on; while no vCPU runs. To be paused from before RAM is saved
  // until all is: a queue at work writes to RAM.
  void pause();
  void resume();

  // The disk of this index in the wires is larger than it was: the driver is told, where the bus has a way (SATA has
  // none). From any thread, holding no lock.
  void disk_grew(size_t index);

  // All devices, while no vCPU runs; one that is not paused is for as long as this takes. vCPUs and RAM are saved by
  // the VMM, and restored before this. An error leaves a machine that must be started anew.
  void save_state(StateWriter& writer) const;
  Result<> restore_state(const StateReader& reader);

  // Of the network cards, in the order of the wires; from any thread.
  [[nodiscard]] std::vector<device::virtio::NetCounters> nic_counters() const;

  // For an engine whose local APICs live in the host kernel.
  [[nodiscard]] device::interrupt::IoApic& io_apic();

  // One line for each range of the bus, for people.
  [[nodiscard]] std::vector<std::string> describe_bus() const;

 private:
  struct Board;
  explicit Machine(std::unique_ptr<Board> board);
  std::unique_ptr<Board> board_;
};

}  // namespace bulkhead::machine

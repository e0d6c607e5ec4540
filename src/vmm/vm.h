// One virtual machine: guest memory, an engine's vCPUs, the board and what it is plugged into, the threads that run
// them, and the state driver that decides. It holds everything it needs; there may be several in one process.
//
//   auto vm = TRY(Vm::create(config, EngineSources::of_this_host()));   // powered on, at its first instruction
//   vm->start();
//   Outcome outcome = vm->driver().wait();
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "console/backends.h"
#include "cpu/model.h"
#include "machine/board/machine.h"
#include "memory/guest_memory.h"
#include "net/link/cable.h"
#include "net/link/fabric.h"
#include "net/link/rate_limited.h"
#include "support/loop/event_loop.h"
#include "support/os/mutex.h"
#include "support/os/thread.h"
#include "support/random.h"
#include "support/time/counted_clock.h"
#include "support/time/host_clock.h"
#include "vmm/config/config.h"
#include "vmm/counted/output_only.h"
#include "vmm/counted/turns.h"
#include "vmm/disk_jobs.h"
#include "vmm/disks.h"
#include "vmm/engine/engine_choice.h"
#include "vmm/panic_watch.h"
#include "vmm/state_driver.h"
#include "vmm/statistics.h"
#include "vmm/trace.h"
#include "vmm/translation_log.h"

namespace bulkhead::vmm {

class Vm final : public Board {
 public:
  // The configuration has passed check_config(). Errors name the setting they come from.
  static Result<std::unique_ptr<Vm>> create(const VmConfig& config, const EngineSources& sources);
  ~Vm() override;

  // Of the disks that are to know guest RAM; once, behind read_checkpoint() where there is one and before start().
  Result<> register_memory();
  // Lets the loop and, unless somebody holds the VM, its vCPUs run.
  void start();
  // Ends the VM if need be, flushes what the guest wrote to its consoles and ends the loop. The destructor does the
  // same.
  void finish();

  [[nodiscard]] StateDriver& driver() { return *driver_; }
  // Of the consoles; runs from start() to finish(). What does not block may use it too.
  [[nodiscard]] EventLoop& loop() { return *loop_; }
  // On the loop's thread.
  [[nodiscard]] DiskJobs& disk_jobs() { return *disk_jobs_; }
  [[nodiscard]] memory::GuestMemory& memory() { return *memory_; }
  [[nodiscard]] uint32_t vcpu_count() const { return config_.cpus.value; }
  // Its state may be read and set only from StateDriver::call_at_rest().
  [[nodiscard]] cpu::Vcpu& vcpu(uint32_t index) { return engine_->vcpu(index); }
  [[nodiscard]] std::string_view engine_name() const { return choice_.backend->name(); }

  // What the user should know at the start: why this engine, where the consoles are, the escape key.
  [[nodiscard]] std::vector<std::string> notices() const;
  // The process was continued by job control. On the loop's thread.
  void on_continued();
  [[nodiscard]] std::string statistics();
  // SHA-256 over RAM, vCPUs, devices, time and disks, with the VM at rest. Two deterministic runs of one configuration
  // that ended at the same instruction have the same.
  Result<std::string> state_hash();
  // Of a deterministic VM, else null. Who drives it himself does not call start().
  [[nodiscard]] Turns* turns() { return turns_.get(); }
  [[nodiscard]] uint64_t guest_ns() const { return clock_->now_ns(); }
  // Lets the consoles' loop run without the guest; part of start().
  void start_consoles();
  // What is written from now on gets its dirty flag again, after GuestMemory::take_dirty(); with the VM at rest.
  Result<> forget_written() { return engine_->restart_dirty_log(); }

  // vCPUs, devices and time, but not RAM (see checkpoint.h), with the VM at rest. The one that restores was made from
  // an equal configuration, except for the engine. A VM whose restore failed must be thrown away.
  Result<> save(StateWriter& writer);
  Result<> restore(const StateReader& reader);

  // Board: for the state driver.
  Result<> reset() override;
  void pause() override;
  void resume() override;
  void press_power_button() override { machine_->press_power_button(); }
  std::optional<std::string> panic_message() override;

  // "running", "paused" or "paused: " and why, in one line.
  [[nodiscard]] std::string status();
  // Pulls a card's cable or puts it back; false when there is no such card.
  [[nodiscard]] bool plug_card(size_t index, bool plugged);

 private:
  // The board is made before the driver that takes its requests.
  class PowerRelay final : public device::PowerControl {
   public:
    // A repeatable run ends at the instruction that asks for it, not when somebody has heard.
    void connect(device::PowerControl& receiver, Turns* turns) {
      receiver_ = &receiver;
      turns_ = turns;
    }
    void request_power_off() override {
      freeze();
      receiver_->request_power_off();
    }
    void request_reset() override {
      freeze();
      receiver_->request_reset();
    }
    void request_exit(uint8_t status) override {
      freeze();
      receiver_->request_exit(status);
    }

   private:
    void freeze() {
      if (turns_ != nullptr) turns_->freeze();
    }
    device::PowerControl* receiver_ = nullptr;
    Turns* turns_ = nullptr;
  };

  explicit Vm(const VmConfig& config) : config_(config) {}
  Result<> make_tracer();
  Result<> make_engine(const EngineSources& sources);
  Result<> open_consoles();
  Result<> open_disks();
  Result<> open_links();
  [[nodiscard]] net::frame::MacAddress mac_of_card(size_t index) const;
  Result<> make_machine();
  Result<> make_driver();
  [[nodiscard]] bool deterministic() const { return config_.deterministic.value; }
  [[nodiscard]] console::ByteStream* guest_end(console::Backend* backend);
  Result<> power_on();
  Result<> load_guest();
  void on_disk_error(const std::string& message);
  void on_terminal_command(console::TerminalCommand command);

  const VmConfig config_;
  // One of the two is there, made with the engine, which says what it must run on.
  std::unique_ptr<HostClock> host_clock_;
  std::unique_ptr<CountedClock> counted_clock_;
  Clock* clock_ = nullptr;
  std::unique_ptr<RandomSource> random_;
  PowerRelay power_;
  std::unique_ptr<memory::GuestMemory> memory_;
  EngineChoice choice_;
  std::unique_ptr<cpu::CpuModel> model_;
  std::unique_ptr<Tracer> tracer_;
  std::unique_ptr<TranslationLog> translation_log_;
  std::unique_ptr<VmEngine> engine_;
  std::unique_ptr<EventLoop> loop_;
  std::array<std::unique_ptr<console::Backend>, machine::kSerialPortCount> serial_;
  std::array<std::unique_ptr<PanicWatch>, machine::kSerialPortCount> panic_watches_;
  std::unique_ptr<console::Backend> virtio_console_;
  std::vector<std::unique_ptr<OutputOnly>> output_only_;  // in front of the above in a deterministic run
  std::unique_ptr<Disks> disks_;
  std::unique_ptr<DiskJobs> disk_jobs_;
  Mutex disk_error_mutex_;
  std::string disk_error_ GUARDED_BY(disk_error_mutex_);  // for which the machine waits; empty when it does not
  std::unique_ptr<net::link::Fabrics> fabrics_;
  std::vector<std::unique_ptr<net::link::Cable>> links_;        // of the network cards
  std::vector<std::unique_ptr<net::link::RateLimited>> rates_;  // in front of those whose card has a limit
  std::unique_ptr<machine::Machine> machine_;
  std::vector<std::unique_ptr<TracingCpuIo>> tracing_;
  std::unique_ptr<Turns> turns_;
  std::unique_ptr<StateDriver> driver_;
  Thread loop_thread_;
};

}  // namespace bulkhead::vmm

// --trace: one line for each thing a vCPU asks of the board. A guest can ask millions of times a second, so lines
// beyond a rate are counted instead of written.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cpu/cpu_io.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/result.h"
#include "support/time/clock.h"
#include "vmm/config/config.h"

namespace bulkhead::vmm {

class Tracer {
 public:
  static constexpr uint32_t kLinesASecond = 20'000;

  // To standard error when path is empty.
  static Result<std::unique_ptr<Tracer>> create(const std::string& path, const Clock& clock);
  // From any thread.
  void line(uint32_t vcpu_index, std::string_view text);

 private:
  Tracer(Fd file, const Clock& clock) : file_(std::move(file)), clock_(clock) {}
  Fd file_;
  const Clock& clock_;
  Mutex mutex_;
  std::chrono::steady_clock::time_point second_began_ GUARDED_BY(mutex_){};
  uint32_t lines_ GUARDED_BY(mutex_) = 0;
  uint64_t dropped_ GUARDED_BY(mutex_) = 0;
};

// Stands between a vCPU and its board. kExits: ports, memory and MSRs; kMmio: memory; kIrq: interrupts taken.
class TracingCpuIo final : public cpu::CpuIo {
 public:
  TracingCpuIo(cpu::CpuIo& board, Tracer& tracer, const TraceConfig& what, uint32_t vcpu_index)
      : board_(board), tracer_(tracer), what_(what), index_(vcpu_index) {}

  void read_memory(GuestAddress address, MutableByteSpan out) override;
  void write_memory(GuestAddress address, ByteSpan in) override;
  uint32_t read_port(uint16_t port, unsigned size) override;
  void write_port(uint16_t port, unsigned size, uint32_t value) override;
  std::optional<uint8_t> acknowledge_interrupt() override;
  bool interrupt_pending() override { return board_.interrupt_pending(); }
  std::optional<uint64_t> read_apic_msr(uint32_t index) override;
  bool write_apic_msr(uint32_t index, uint64_t value) override;
  void set_tsc_offset(uint64_t offset) override { board_.set_tsc_offset(offset); }
  uint8_t read_task_priority() override { return board_.read_task_priority(); }
  void write_task_priority(uint8_t priority) override { board_.write_task_priority(priority); }

 private:
  cpu::CpuIo& board_;
  Tracer& tracer_;
  const TraceConfig what_;
  const uint32_t index_;
};

}  // namespace bulkhead::vmm

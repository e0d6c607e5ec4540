#include "vmm/trace.h"

#include <fcntl.h>
#include <unistd.h>

namespace bulkhead::vmm {

Result<std::unique_ptr<Tracer>> Tracer::create(const std::string& path, const Clock& clock) {
  Fd file;
  if (path.empty()) {
    file = Fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
    if (!file.valid()) return fail_errno(errno, "trace to standard error");
  } else {
    file = TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND));
  }
  return std::unique_ptr<Tracer>(new Tracer(std::move(file), clock));
}

void Tracer::line(uint32_t vcpu_index, std::string_view text) {
  const uint64_t now_us = clock_.now_ns() / 1000;
  const auto host_now = std::chrono::steady_clock::now();
  std::string out;
  {
    LockGuard guard(mutex_);
    if (host_now - second_began_ >= std::chrono::seconds(1)) {
      if (dropped_ != 0) out = fmt::format("trace: {} lines left out, above {} a second\n", dropped_, kLinesASecond);
      second_began_ = host_now;
      lines_ = 0;
      dropped_ = 0;
    }
    if (lines_ >= kLinesASecond) {
      ++dropped_;
      return;
    }
    ++lines_;
  }
  out += fmt::format("{:>5}.{:06} cpu{} {}\n", now_us / 1'000'000, now_us % 1'000'000, vcpu_index, text);
  // A trace that cannot be written is not worth stopping a VM for.
  [[maybe_unused]] const auto written =
      write_all(file_.get(), {reinterpret_cast<const uint8_t*>(out.data()), out.size()});
}

void TracingCpuIo::read_memory(GuestAddress address, MutableByteSpan out) {
  board_.read_memory(address, out);
  if (!what_.exits && !what_.mmio) return;
  tracer_.line(index_, fmt::format("mmio read  {:#x} {} bytes: {:#x}", address.value, out.size(), load_little(out)));
}

void TracingCpuIo::write_memory(GuestAddress address, ByteSpan in) {
  if (what_.exits || what_.mmio) {
    tracer_.line(index_, fmt::format("mmio write {:#x} {} bytes: {:#x}", address.value, in.size(), load_little(in)));
  }
  board_.write_memory(address, in);
}

uint32_t TracingCpuIo::read_port(uint16_t port, unsigned size) {
  const uint32_t value = board_.read_port(port, size);
  if (what_.exits) tracer_.line(index_, fmt::format("port read  {:#06x} {} bytes: {:#x}", port, size, value));
  return value;
}

void TracingCpuIo::write_port(uint16_t port, unsigned size, uint32_t value) {
  if (what_.exits) tracer_.line(index_, fmt::format("port write {:#06x} {} bytes: {:#x}", port, size, value));
  board_.write_port(port, size, value);
}

std::optional<uint8_t> TracingCpuIo::acknowledge_interrupt() {
  const auto vector = board_.acknowledge_interrupt();
  if (vector && what_.irq) tracer_.line(index_, fmt::format("irq  vector {:#04x}", *vector));
  return vector;
}

std::optional<uint64_t> TracingCpuIo::read_apic_msr(uint32_t index) {
  const auto value = board_.read_apic_msr(index);
  if (what_.exits) {
    tracer_.line(index_, fmt::format("msr  read  {:#x}: {}", index, value ? fmt::format("{:#x}", *value) : "#GP"));
  }
  return value;
}

bool TracingCpuIo::write_apic_msr(uint32_t index, uint64_t value) {
  const bool done = board_.write_apic_msr(index, value);
  if (what_.exits) tracer_.line(index_, fmt::format("msr  write {:#x}: {:#x}{}", index, value, done ? "" : " #GP"));
  return done;
}

}  // namespace bulkhead::vmm

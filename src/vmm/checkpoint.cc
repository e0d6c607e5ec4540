#include "vmm/checkpoint.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include "support/os/fd.h"
#include "vmm/vm.h"

namespace bulkhead::vmm {
namespace {

constexpr std::array<uint8_t, 8> kMagic = {'B', 'H', 'C', 'H', 'E', 'C', 'K', '1'};
constexpr uint64_t kMaximumStateSize = 64 << 20;
constexpr uint64_t kMaximumRun = 256;
constexpr uint64_t kEnd = UINT64_MAX;

struct RunHeader {
  uint64_t page = 0;
  uint64_t count = 0;
};

template <typename T>
Result<> put(int fd, const T& object) {
  return write_all(fd, as_bytes(object));
}

Result<> read_exactly(int fd, MutableByteSpan out) {
  while (!out.empty()) {
    const ssize_t count = ::read(fd, out.data(), out.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno(errno, "read");
    if (count == 0) return fail("ends {} bytes too early", out.size());
    out = out.subspan(static_cast<size_t>(count));
  }
  return {};
}

bool is_zero(const uint8_t* page) {
  static constexpr std::array<uint8_t, kPageSize> kZeroes{};
  return std::memcmp(page, kZeroes.data(), kPageSize) == 0;
}

Result<> write_range(int fd, memory::GuestMemory& memory, uint64_t first, uint64_t end) {
  uint64_t page = first;
  while (page < end) {
    const uint8_t* bytes = memory.data({page << kPageShift}, kPageSize);
    if (is_zero(bytes)) {
      ++page;
      continue;
    }
    uint64_t count = 1;
    while (count < kMaximumRun && page + count < end && !is_zero(bytes + count * kPageSize)) ++count;
    TRY(put(fd, RunHeader{page, count}));
    TRY(write_all(fd, {bytes, count * kPageSize}));
    page += count;
  }
  return {};
}

Result<> write_to(int fd, Vm& vm) {
  StateWriter writer(1);
  TRY(vm.save(writer));
  const std::vector<uint8_t> state = writer.encode();
  TRY(write_all(fd, kMagic));
  TRY(put(fd, static_cast<uint64_t>(state.size())));
  TRY(write_all(fd, state));
  memory::GuestMemory& memory = vm.memory();
  TRY(write_range(fd, memory, 0, memory.low_size() >> kPageShift));
  const uint64_t high = memory::GuestMemory::kHoleEnd >> kPageShift;
  TRY(write_range(fd, memory, high, high + (memory.high_size() >> kPageShift)));
  return put(fd, RunHeader{kEnd, 0});
}

// What the kernel's loader left in the RAM of a VM just made is not the saved machine's.
Result<> clear(memory::GuestMemory& memory) {
  if (::fallocate(memory.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(memory.size())) != 0) {
    return fail_errno(errno, "clear guest memory");
  }
  memory.mark_written({0}, memory.low_size());
  if (memory.high_size() != 0) memory.mark_written({memory::GuestMemory::kHoleEnd}, memory.high_size());
  return {};
}

Result<> read_from(int fd, Vm& vm) {
  std::array<uint8_t, kMagic.size()> magic{};
  TRY(read_exactly(fd, magic));
  if (magic != kMagic) return fail("is no checkpoint");
  uint64_t size = 0;
  TRY(read_exactly(fd, as_mutable_bytes(size)));
  if (size > kMaximumStateSize) return fail("{} bytes of state, above {}", size, kMaximumStateSize);
  std::vector<uint8_t> state(size);
  TRY(read_exactly(fd, state));
  memory::GuestMemory& memory = vm.memory();
  TRY(clear(memory));
  while (true) {
    RunHeader run;
    TRY(read_exactly(fd, as_mutable_bytes(run)));
    if (run.page == kEnd) break;
    const auto address = checked_multiply(run.page, kPageSize);
    uint8_t* bytes = nullptr;
    if (run.count != 0 && run.count <= kMaximumRun && address) bytes = memory.data({*address}, run.count * kPageSize);
    if (bytes == nullptr) return fail("{} pages at page {:#x} are not RAM", run.count, run.page);
    TRY(read_exactly(fd, {bytes, run.count * kPageSize}));
    memory.mark_written({*address}, run.count * kPageSize);
  }
  return vm.restore(TRY(StateReader::parse(state, "state")));
}

}  // namespace

Result<> write_checkpoint(const std::string& path, Vm& vm) {
  const std::string unfinished = path + ".unfinished";
  const Fd file = TRY(open_file(unfinished, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  Result<> written;
  if (!vm.driver().call_at_rest([&] { written = write_to(file.get(), vm); })) written = fail("the VM has ended");
  if (written && ::fsync(file.get()) != 0) written = fail_errno(errno, "fsync");
  if (written && std::rename(unfinished.c_str(), path.c_str()) != 0) written = fail_errno(errno, "rename");
  if (!written) {
    ::unlink(unfinished.c_str());
    return std::unexpected(std::move(written).error().in(fmt::format("checkpoint '{}'", path)));
  }
  return {};
}

Result<> read_checkpoint(const std::string& path, Vm& vm) {
  const Fd file = TRY(open_file(path, O_RDONLY));
  auto done = read_from(file.get(), vm);
  if (!done) return std::unexpected(std::move(done).error().in(fmt::format("checkpoint '{}'", path)));
  return {};
}

}  // namespace bulkhead::vmm

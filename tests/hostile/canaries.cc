#include "hostile/canaries.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <sys/mman.h>

#include "support/check.h"
#include "support/random.h"

namespace bulkhead::hostile {
namespace {

constexpr size_t kHeapBlocks = 400;
constexpr size_t kStaticSize = 1 << 20;
// As GuestMemory lays its window out: guards of this size on both sides.
constexpr uint64_t kGuardSize = 4ull << 30;
constexpr uint64_t kMostSlack = 1 << 30;

uint8_t static_canary[kStaticSize];
uint8_t initialised_canary[4096] = {1};

}  // namespace

Canaries::Canaries(uint64_t seed) : next_seed_(seed) {
  add("static memory", static_canary, sizeof static_canary);
  add("initialised data", initialised_canary, sizeof initialised_canary);
  SeededRandom random(seed);
  for (size_t i = 0; i < kHeapBlocks; ++i) {
    const size_t size = size_t{16} << random.below(13);
    heap_.push_back(std::make_unique<uint8_t[]>(size));
    add(fmt::format("heap block {}", i), heap_.back().get(), size);
  }
  lasting_ = canaries_.size();
}

void Canaries::add(std::string name, uint8_t* at, size_t size) {
  canaries_.push_back({std::move(name), at, size, ++next_seed_});
  SeededRandom(next_seed_).fill({at, size});
}

Result<> Canaries::make_place(uint64_t ram_bytes) {
  forget_place();
  const uint64_t window = kGuardSize + ram_bytes + kGuardSize + slack_;
  slack_ = std::min(2 * slack_, kMostSlack);
  void* whole =
      ::mmap(nullptr, kEdgeSize + window + kEdgeSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return fail_errno(errno, "address space for {} bytes", window);
  auto* at = static_cast<uint8_t*>(whole);
  CHECK(::munmap(at + kEdgeSize, window) == 0, "what was mapped can be unmapped");
  for (const auto& [name, edge] :
       {std::pair("below guest RAM", at), std::pair("above guest RAM", at + kEdgeSize + window)}) {
    if (::mprotect(edge, kEdgeSize, PROT_READ | PROT_WRITE) != 0) return fail_errno(errno, "a canary {}", name);
    edges_.emplace_back(edge, kEdgeSize);
    add(name, edge, kEdgeSize);
  }
  return {};
}

Result<> Canaries::check_place(const memory::GuestMemory& memory) const {
  if (edges_.size() != 2) return fail("there is no place for guest RAM yet");
  const uint8_t* begin = memory.host_base() - kGuardSize;
  const uint8_t* end = memory.host_base() + memory.end() + kGuardSize;
  if (begin < edges_[0].data() + kEdgeSize || end > edges_[1].data()) {
    return fail("guest RAM does not lie between its canaries");
  }
  return {};
}

void Canaries::forget_place() {
  canaries_.resize(lasting_);
  edges_.clear();
}

std::vector<std::string> Canaries::changed() const {
  std::vector<std::string> lines;
  std::vector<uint8_t> expected;
  for (const Canary& canary : canaries_) {
    expected.resize(canary.size);
    SeededRandom(canary.seed).fill(expected);
    if (std::memcmp(expected.data(), canary.at, canary.size) == 0) continue;
    const auto at = std::mismatch(expected.begin(), expected.end(), canary.at).first - expected.begin();
    lines.push_back(fmt::format("{}: byte {} of {} has changed", canary.name, at, canary.size));
  }
  return lines;
}

uint64_t Canaries::bytes() const {
  uint64_t sum = 0;
  for (const Canary& canary : canaries_) sum += canary.size;
  return sum;
}

bool Canaries::falsify(const std::string& name) {
  const auto found = std::ranges::find_if(canaries_, [&](const Canary& one) { return one.name.starts_with(name); });
  if (found == canaries_.end()) return false;
  found->at[found->size - 1] ^= 1;
  return true;
}

Result<std::vector<std::string>> writable_code() {
  const std::string maps = TRY(read_file("/proc/self/maps", 64 << 20));
  std::vector<std::string> found;
  for (size_t at = 0; at < maps.size();) {
    const size_t end = std::min(maps.find('\n', at), maps.size());
    const std::string line = maps.substr(at, end - at);
    const size_t rights = line.find(' ');
    if (rights != std::string::npos && line.size() > rights + 3 && line[rights + 2] == 'w' && line[rights + 3] == 'x') {
      found.push_back(line);
    }
    at = end + 1;
  }
  return found;
}

Result<size_t> descriptor_count() {
  std::error_code error;
  std::filesystem::directory_iterator all("/proc/self/fd", error);
  if (error) return fail("/proc/self/fd: {}", error.message());
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

}  // namespace bulkhead::hostile

// Bytes that an image format stands on: a file or block device of the host, or memory in a test. Calls are synchronous
// and may come from several threads at once; a format calls them on worker threads, never on a vCPU's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/request.h"
#include "support/bytes.h"
#include "support/result.h"

namespace bulkhead::block {

enum class Access : uint8_t {
  kReadWrite,
  kReadOnly,
  kFill,    // as kReadWrite, for a new image that is filled once: some can only be written from beginning to end
  kRepair,  // as kReadWrite, but an image may be damaged: nothing but check() may be called
  kCommit,  // as kReadWrite, for a backing file that takes what its overlay holds: it stays the one the overlay names
};

// Whether data passes through the host's page cache.
enum class HostCache : uint8_t {
  kUsed,
  // Partly, whichever is faster (two_ways.h), and a flush does nothing: for new files that may be lost with the host's
  // power.
  kTrusted,
  kBypassed,
  kBypassedIfPossible,
};

// A run of bytes that either may hold data or certainly reads as zeroes.
struct StoreExtent {
  uint64_t size = 0;
  bool hole = false;
};

class Store {
 public:
  virtual ~Store() = default;
  // For messages.
  [[nodiscard]] virtual const std::string& name() const = 0;
  [[nodiscard]] virtual Result<uint64_t> size() = 0;
  // What lies beyond the end reads as zeroes.
  [[nodiscard]] virtual Status read(uint64_t offset, MutableByteSpan bytes) = 0;
  // Beyond the end, the store grows; a gap reads as zeroes.
  [[nodiscard]] virtual Status write(uint64_t offset, ByteSpan bytes) = 0;
  // Never succeeds again after it has failed once.
  [[nodiscard]] virtual Status flush() = 0;
  // Gives the storage back; the range reads as zeroes afterwards. kUnsupported when it cannot.
  [[nodiscard]] virtual Status punch(uint64_t offset, uint64_t size) = 0;
  [[nodiscard]] virtual Status truncate(uint64_t size) = 0;
  // All that it holds, at once: after a power cut it is the old or the new. For small files.
  [[nodiscard]] virtual Result<> replace(ByteSpan) { return fail("replace '{}': no such thing here", name()); }
  // Whether what nobody has written reads as zeroes: not where the store was there before, as on a block device.
  [[nodiscard]] virtual bool starts_as_zeroes() const { return true; }
  // Storage for the range, which need not be written, so that a write there does not find it full; what was there
  // stays, and beyond the end the store grows. kUnsupported when it cannot.
  [[nodiscard]] virtual Status reserve(uint64_t, uint64_t) { return Status::kUnsupported; }
  // Bytes of the host's storage that it takes; none when nobody knows.
  [[nodiscard]] virtual std::optional<uint64_t> allocated() { return std::nullopt; }
  // The run that begins at offset, which lies below size().
  [[nodiscard]] virtual StoreExtent extent(uint64_t offset) = 0;

  // The same with an Error that names the store and the offset.
  Result<> read_all(uint64_t offset, MutableByteSpan bytes) { return say(read(offset, bytes), "read", offset); }
  Result<> write_all(uint64_t offset, ByteSpan bytes) { return say(write(offset, bytes), "write", offset); }
  Result<> flush_all() { return say(flush(), "flush", 0); }

 private:
  Result<> say(Status status, std::string_view what, uint64_t offset) const {
    if (status == Status::kOk) return {};
    return fail("{} '{}' at byte {}: {}", what, name(), offset, to_string(status));
  }
};

}  // namespace bulkhead::block

// What goes over the wire of the NBD protocol (fixed newstyle) as plain values; all numbers are big-endian there.
// Nothing that a client says is used before it has been checked against the limits here. Source: the NBD project's
// doc/proto.md.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/bytes.h"

namespace bulkhead::block::nbd {

// ---- Limits ----

inline constexpr uint32_t kMaximumOptionBytes = 16384, kMaximumNameBytes = 4096;
inline constexpr unsigned kMaximumOptions = 64;                   // of one negotiation
inline constexpr uint32_t kMaximumTransfer = uint32_t{32} << 20;  // bytes of one read or write
inline constexpr unsigned kMaximumExtents = 1024;                 // of one answer

// ---- Negotiation ----

inline constexpr uint64_t kServerMagic = 0x4E42444D41474943, kOptionMagic = 0x49484156454F5054;
inline constexpr uint64_t kOptionReplyMagic = 0x0003E889045565A9;
inline constexpr uint16_t kFixedNewstyle = 1, kNoZeroes = 2;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kUnsupported = 0x80000001,
  kInvalid = 0x80000003,
  kUnknown = 0x80000006,
  kTooBig = 0x80000009,
};

enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

inline constexpr size_t kOptionHeaderBytes = 16;
struct OptionHeader {
  uint32_t option = 0, size = 0;  // of the data that follows
};
// 16 bytes; empty when they are no option.
[[nodiscard]] std::optional<OptionHeader> parse_option_header(ByteSpan bytes);

// Of kInfo and kGo.
struct InfoQuery {
  std::string name;
  std::vector<uint16_t> wanted;
};
[[nodiscard]] std::optional<InfoQuery> parse_info_query(ByteSpan data);

// Of kListMetaContext and kSetMetaContext.
struct ContextQuery {
  std::string name;
  std::vector<std::string> contexts;
};
[[nodiscard]] std::optional<ContextQuery> parse_context_query(ByteSpan data);

inline constexpr std::string_view kAllocation = "base:allocation";
inline constexpr uint32_t kAllocationId = 1;

// ---- Transmission ----

inline constexpr uint16_t kHasFlags = 1, kReadOnly = 2, kSendFlush = 4, kSendFua = 8, kSendTrim = 32,
                          kSendWriteZeroes = 64, kSendDoNotFragment = 128, kCanMultiConn = 256;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};
inline constexpr uint16_t kFlagFua = 1, kFlagNoHole = 2, kFlagDoNotFragment = 4, kFlagOneExtent = 8;

inline constexpr size_t kRequestBytes = 28;
inline constexpr uint32_t kRequestMagic = 0x25609513;
struct CommandHeader {
  uint16_t flags = 0, type = 0;
  uint64_t cookie = 0, offset = 0;
  uint32_t size = 0;
};
// 28 bytes; empty when they are no request.
[[nodiscard]] std::optional<CommandHeader> parse_request(ByteSpan bytes);

enum class ErrorNumber : uint32_t {
  kNone = 0,
  kPermission = 1,
  kIo = 5,
  kInvalid = 22,
  kNoSpace = 28,
  kNotSupported = 95,
};

// What the server can do with a disk, against which a request is checked.
struct Offer {
  uint64_t size = 0;
  uint32_t block_bytes = 512;  // least unit of a request
  bool read_only = false;
  bool has_contexts = false;  // the client has asked for block status
};
[[nodiscard]] ErrorNumber check_request(const Offer& offer, const CommandHeader& header);

inline constexpr uint32_t kSimpleReplyMagic = 0x67446698, kStructuredReplyMagic = 0x668E33EF;
inline constexpr uint16_t kReplyDone = 1;
enum class Chunk : uint16_t { kData = 1, kBlockStatus = 5, kError = 0x8001 };
inline constexpr uint32_t kStateHole = 1, kStateZero = 2;

// Puts numbers behind one another, most significant byte first.
class Writer {
 public:
  template <std::unsigned_integral T>
  Writer& put(T value) {
    for (size_t i = sizeof(T); i-- != 0;) bytes_.push_back(static_cast<uint8_t>(uint64_t{value} >> (8 * i)));
    return *this;
  }
  Writer& put(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  Writer& put(const std::vector<uint8_t>& bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

[[nodiscard]] std::vector<uint8_t> make_option_reply(uint32_t option, OptionReply reply,
                                                     const std::vector<uint8_t>& data);
[[nodiscard]] std::vector<uint8_t> make_simple_reply(ErrorNumber error, uint64_t cookie);
// The only and last chunk of an answer, whose data of that size follows what this gives.
[[nodiscard]] std::vector<uint8_t> make_chunk(Chunk type, uint64_t cookie, uint32_t size);

}  // namespace bulkhead::block::nbd

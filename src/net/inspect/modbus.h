// Modbus/TCP requests (MODBUS Messaging on TCP/IP 1.0b, MODBUS Application Protocol 1.1b3) out of a stream, and whether
// a policy allows them: by unit, function code and address range. Pure: the same bytes give the same verdicts, however
// TCP cuts them.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "net/inspect/ordered_stream.h"
#include "support/bytes.h"

namespace bulkhead::net::inspect {

struct AddressRange {
  uint16_t first = 0;
  uint16_t last = 0;
  [[nodiscard]] bool contains(const AddressRange& other) const { return other.first >= first && other.last <= last; }
  friend bool operator==(const AddressRange&, const AddressRange&) = default;
};

struct ModbusRequest {
  uint16_t transaction = 0;
  uint8_t unit = 0;
  uint8_t function = 0;
  std::array<AddressRange, 2> ranges{};  // that it reads or writes
  uint8_t range_count = 0;
};

using ModbusFunctions = std::bitset<128>;
[[nodiscard]] ModbusFunctions modbus_reads();   // coils, inputs and registers
[[nodiscard]] ModbusFunctions modbus_writes();  // those that change them

// Allows requests to these units with these functions. Where a function has addresses, they lie in the range.
struct ModbusRule {
  uint8_t first_unit = 0;
  uint8_t last_unit = 255;
  ModbusFunctions functions;
  AddressRange addresses{0, UINT16_MAX};
};

struct ModbusPolicy {
  std::vector<ModbusRule> rules;  // one of them allows, or nothing does
  static constexpr size_t kMaximumRules = 256;
};

enum class ModbusVerdict : uint8_t { kAllowed, kFunction, kAddress, kMalformed };
[[nodiscard]] std::string_view to_string(ModbusVerdict verdict);
[[nodiscard]] ModbusVerdict judge(const ModbusPolicy& policy, const ModbusRequest& request);

inline constexpr size_t kModbusLargest = 260;  // header and message

struct ModbusFramed {
  enum class Kind : uint8_t { kIncomplete, kRequest, kMalformed };
  Kind kind = Kind::kIncomplete;
  size_t size = 0;  // of the whole request
  ModbusRequest request;
};
// The request that bytes begin with. Malformed is found as soon as the bytes that show it are there.
[[nodiscard]] ModbusFramed read_modbus(ByteSpan bytes);
// What a server would answer to a request that it does not carry out: exception 1 or 2.
[[nodiscard]] std::vector<uint8_t> modbus_refusal(const ModbusRequest& request, ModbusVerdict verdict);

// The client's side of one connection. Segments pass only in order and only as long as nothing was refused; of the one
// that completes a refused request only what comes before that request passes, so that no server ever has one whole and
// none is without an allowed one.
class ModbusInspector {
 public:
  enum class Outcome : uint8_t {
    kPass,
    kDrop,     // behind a gap, or too much at once: its sender repeats it
    kRefused,  // by the policy; from here on everything new is
    kConflict  // a repetition that says something else: as refused
  };
  struct Inspected {
    Outcome outcome = Outcome::kPass;
    ModbusVerdict verdict = ModbusVerdict::kAllowed;
    ModbusRequest request;       // that was refused
    unsigned allowed_count = 0;  // requests that this segment completed
    size_t passed = 0;           // of kRefused: so many bytes from the segment's beginning pass all the same
  };

  // The policy outlives the inspector.
  ModbusInspector(const ModbusPolicy& policy, uint32_t first_sequence) : policy_(policy), stream_(first_sequence) {}

  Inspected on_client(uint32_t sequence, ByteSpan bytes);
  // What the server acknowledged.
  void on_server(uint32_t acknowledgement) { stream_.acknowledge(acknowledgement); }
  // The sequence number of the first byte that has not passed.
  [[nodiscard]] uint32_t next() const { return stream_.next(); }
  [[nodiscard]] uint64_t allowed_count() const { return allowed_count_; }

 private:
  const ModbusPolicy& policy_;
  OrderedStream stream_;
  std::vector<uint8_t> partial_;  // the beginning of a request, less than kModbusLargest
  std::optional<Inspected> refused_;
  uint64_t allowed_count_ = 0;
};

// The server's side: where its stream is, and how many answers are in it. It passes in order only. What the answers say
// is not looked at; a server that frames them wrongly is counted wrongly.
class ModbusAnswers {
 public:
  void begin(uint32_t first_sequence) { next_ = first_sequence; }
  // False: behind a gap; its sender is to repeat it.
  [[nodiscard]] bool on_server(uint32_t sequence, ByteSpan bytes);
  [[nodiscard]] uint32_t next() const { return next_; }
  [[nodiscard]] uint64_t count() const { return count_; }

 private:
  static constexpr size_t kHeaderSize = 6;  // up to the length of what follows
  uint32_t next_ = 0;
  std::array<uint8_t, kHeaderSize> header_{};
  size_t header_size_ = 0;
  size_t body_left_ = 0;
  uint64_t count_ = 0;
};

}  // namespace bulkhead::net::inspect

#include "net/inspect/modbus.h"

#include <algorithm>
#include <span>

#include "net/frame/big_endian.h"

namespace bulkhead::net::inspect {
namespace {

using frame::load_big16;

constexpr size_t kHeaderSize = 7;  // transaction, protocol, length, unit
constexpr size_t kLengthEnd = 6;   // the length counts what follows it
constexpr uint8_t kIllegalFunction = 1, kIllegalAddress = 2;

// Reads the fields of a message behind its function code.
struct Fields {
  ByteSpan bytes;
  [[nodiscard]] uint16_t word(size_t index) const { return load_big16(bytes.data() + 2 * index); }
};

bool add_range(ModbusRequest& request, uint16_t first, uint16_t count, uint16_t most) {
  if (count == 0 || count > most || uint32_t{first} + count > 0x10000) return false;
  request.ranges[request.range_count++] = {first, static_cast<uint16_t>(first + count - 1)};
  return true;
}

// Address, quantity, byte count and as many bytes.
bool read_multiple_write(ModbusRequest& request, Fields fields, bool bits) {
  if (fields.bytes.size() < 5) return false;
  const uint16_t count = fields.word(1);
  if (!add_range(request, fields.word(0), count, bits ? 1968 : 123)) return false;
  const size_t data_size = bits ? (count + 7u) / 8 : 2u * count;
  return fields.bytes[4] == data_size && fields.bytes.size() == 5 + data_size;
}

bool read_and_write(ModbusRequest& request, Fields fields) {
  if (fields.bytes.size() < 9) return false;
  const size_t data_size = 2u * fields.word(3);
  return add_range(request, fields.word(0), fields.word(1), 125) &&
         add_range(request, fields.word(2), fields.word(3), 121) && fields.bytes[8] == data_size &&
         fields.bytes.size() == 9 + data_size;
}

// False when the message is not as its function code wants it: two readers could understand it differently.
bool read_message(ModbusRequest& request, ByteSpan bytes) {
  const Fields fields{bytes};
  switch (request.function) {
    case 1:
    case 2:
      return bytes.size() == 4 && add_range(request, fields.word(0), fields.word(1), 2000);
    case 3:
    case 4:
      return bytes.size() == 4 && add_range(request, fields.word(0), fields.word(1), 125);
    case 5:
      return bytes.size() == 4 && (fields.word(1) == 0 || fields.word(1) == 0xFF00) &&
             add_range(request, fields.word(0), 1, 1);
    case 6:
      return bytes.size() == 4 && add_range(request, fields.word(0), 1, 1);
    case 15:
    case 16:
      return read_multiple_write(request, fields, request.function == 15);
    case 22:
      return bytes.size() == 6 && add_range(request, fields.word(0), 1, 1);
    case 23:
      return read_and_write(request, fields);
    case 24:
      return bytes.size() == 2 && add_range(request, fields.word(0), 1, 1);
    default:
      // 0 is none, and from 128 on they are answers.
      return request.function != 0 && request.function < 128;
  }
}

ModbusFunctions functions(std::initializer_list<uint8_t> codes) {
  ModbusFunctions set;
  for (const uint8_t code : codes) set.set(code);
  return set;
}

bool covers(const ModbusRule& rule, const ModbusRequest& request) {
  return request.unit >= rule.first_unit && request.unit <= rule.last_unit && rule.functions.test(request.function);
}

}  // namespace

ModbusFunctions modbus_reads() {
  return functions({1, 2, 3, 4, 24});
}
ModbusFunctions modbus_writes() {
  return functions({5, 6, 15, 16, 22, 23});
}

std::string_view to_string(ModbusVerdict verdict) {
  switch (verdict) {
    case ModbusVerdict::kAllowed:
      return "allowed";
    case ModbusVerdict::kFunction:
      return "unit or function not allowed";
    case ModbusVerdict::kAddress:
      return "address not allowed";
    case ModbusVerdict::kMalformed:
      return "not a Modbus request";
  }
  return "";
}

ModbusVerdict judge(const ModbusPolicy& policy, const ModbusRequest& request) {
  bool function_allowed = false;
  for (const ModbusRule& rule : policy.rules) function_allowed |= covers(rule, request);
  if (!function_allowed) return ModbusVerdict::kFunction;
  // One rule has all of it: half of a request by one and half by another is what neither of them allows.
  const std::span<const AddressRange> ranges(request.ranges.data(), request.range_count);
  const bool allowed = std::ranges::any_of(policy.rules, [&](const ModbusRule& rule) {
    return covers(rule, request) &&
           std::ranges::all_of(ranges, [&](const AddressRange& range) { return rule.addresses.contains(range); });
  });
  if (!allowed) return ModbusVerdict::kAddress;
  return ModbusVerdict::kAllowed;
}

ModbusFramed read_modbus(ByteSpan bytes) {
  using Kind = ModbusFramed::Kind;
  if (bytes.size() >= 4 && load_big16(bytes.data() + 2) != 0) return {.kind = Kind::kMalformed};
  if (bytes.size() < kLengthEnd) return {};
  const size_t size = kLengthEnd + load_big16(bytes.data() + 4);
  if (size < kHeaderSize + 1 || size > kModbusLargest) return {.kind = Kind::kMalformed};
  if (bytes.size() < size) return {};
  ModbusFramed framed{.kind = Kind::kRequest,
                      .size = size,
                      .request = {.transaction = load_big16(bytes.data()), .unit = bytes[6], .function = bytes[7]}};
  if (!read_message(framed.request, bytes.subspan(kHeaderSize + 1, size - kHeaderSize - 1))) {
    framed.kind = Kind::kMalformed;
  }
  return framed;
}

std::vector<uint8_t> modbus_refusal(const ModbusRequest& request, ModbusVerdict verdict) {
  const auto low = static_cast<uint8_t>(request.transaction);
  const auto high = static_cast<uint8_t>(request.transaction >> 8);
  const uint8_t code = verdict == ModbusVerdict::kAddress ? kIllegalAddress : kIllegalFunction;
  return {high, low, 0, 0, 0, 3, request.unit, static_cast<uint8_t>(request.function | 0x80), code};
}

ModbusInspector::Inspected ModbusInspector::on_client(uint32_t sequence, ByteSpan bytes) {
  using Fit = OrderedStream::Fit;
  const OrderedStream::Examined examined = stream_.examine(sequence, bytes);
  switch (examined.fit) {
    case Fit::kRepeated:
      return {};
    case Fit::kGap:
    case Fit::kFull:
      return {.outcome = Outcome::kDrop};
    case Fit::kConflict:
      refused_ = {.outcome = Outcome::kConflict, .verdict = ModbusVerdict::kMalformed};
      return *refused_;
    case Fit::kNext:
      break;
  }
  const size_t known = bytes.size() - examined.fresh.size();
  if (refused_) {
    Inspected again = *refused_;
    again.passed = again.outcome == Outcome::kRefused ? known : 0;
    return again;
  }
  Inspected result;
  std::vector<uint8_t> waiting = partial_;
  waiting.insert(waiting.end(), examined.fresh.begin(), examined.fresh.end());
  ByteSpan rest = waiting;
  while (!rest.empty()) {
    const ModbusFramed framed = read_modbus(rest);
    if (framed.kind == ModbusFramed::Kind::kIncomplete) break;
    result.verdict =
        framed.kind == ModbusFramed::Kind::kMalformed ? ModbusVerdict::kMalformed : judge(policy_, framed.request);
    if (result.verdict != ModbusVerdict::kAllowed) {
      refused_ = {.outcome = Outcome::kRefused, .verdict = result.verdict, .request = framed.request};
      const size_t judged = waiting.size() - rest.size();
      const size_t allowed = judged > partial_.size() ? judged - partial_.size() : 0;
      stream_.commit(examined.fresh.first(allowed));
      Inspected refused = *refused_;
      refused.allowed_count = result.allowed_count;
      refused.passed = known + allowed;
      return refused;
    }
    ++result.allowed_count;
    ++allowed_count_;
    rest = rest.subspan(framed.size);
  }
  partial_.assign(rest.begin(), rest.end());
  stream_.commit(examined.fresh);
  return result;
}

bool ModbusAnswers::on_server(uint32_t sequence, ByteSpan bytes) {
  const auto distance = static_cast<int32_t>(sequence - next_);
  if (distance > 0) return false;
  const auto known = static_cast<size_t>(-int64_t{distance});
  if (known >= bytes.size()) return true;
  bytes = bytes.subspan(known);
  next_ += static_cast<uint32_t>(bytes.size());
  while (!bytes.empty()) {
    if (header_size_ < kHeaderSize) {
      const size_t size = std::min(kHeaderSize - header_size_, bytes.size());
      std::ranges::copy(bytes.first(size), header_.begin() + static_cast<ptrdiff_t>(header_size_));
      header_size_ += size;
      bytes = bytes.subspan(size);
      if (header_size_ < kHeaderSize) return true;
      body_left_ = load_big16(header_.data() + 4);
    }
    const size_t size = std::min(body_left_, bytes.size());
    body_left_ -= size;
    bytes = bytes.subspan(size);
    if (body_left_ != 0) return true;
    ++count_;
    header_size_ = 0;
  }
  return true;
}

}  // namespace bulkhead::net::inspect

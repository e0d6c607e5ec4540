// A hostile Modbus client behind TCP: any segments, repeated, overlapping and out of order, with acknowledgements
// between. Whatever a server puts together out of those that passed, taking the first or the last of two versions of a
// byte, is made of allowed requests alone.
#include <optional>

#include "net/inspect/modbus.h"
#include "support/check.h"

namespace bulkhead::net::inspect {
namespace {

constexpr uint32_t kFirst = 0xFFFF'FF80;

// Keeps the first or the last version of each byte that it does not acknowledge.
struct Server {
  bool keeps_first;
  std::vector<std::optional<uint8_t>> bytes;
  void take(uint32_t offset, ByteSpan segment, size_t acknowledged) {
    for (size_t i = 0; i < segment.size(); ++i) {
      const size_t at = offset + i;
      if (at < acknowledged) continue;
      if (bytes.size() <= at) bytes.resize(at + 1);
      if (!bytes[at] || !keeps_first) bytes[at] = segment[i];
    }
  }
  void check(const ModbusPolicy& policy) const {
    std::vector<uint8_t> whole;
    for (const auto& byte : bytes) {
      if (!byte) break;
      whole.push_back(*byte);
    }
    for (ByteSpan rest = whole; !rest.empty();) {
      const ModbusFramed framed = read_modbus(rest);
      if (framed.kind != ModbusFramed::Kind::kRequest) break;
      CHECK(judge(policy, framed.request) == ModbusVerdict::kAllowed, "a server has a request that was refused");
      rest = rest.subspan(framed.size);
    }
  }
};

void run(ByteSpan input) {
  const ModbusPolicy policy{
      .rules = {{.first_unit = 1, .last_unit = 1, .functions = modbus_reads(), .addresses = {0, 99}}}};
  ModbusInspector inspector(policy, kFirst);
  Server first{.keeps_first = true, .bytes = {}}, last{.keeps_first = false, .bytes = {}};
  size_t acknowledged = 0;
  while (input.size() >= 3) {
    const uint32_t offset = load<uint16_t>(input.data()) % 512;
    const size_t size = std::min<size_t>(input[2] & 0x7F, input.size() - 3);
    if ((input[2] & 0x80) != 0) {
      // A server acknowledges what it has.
      size_t has = acknowledged;
      while (has < first.bytes.size() && first.bytes[has]) ++has;
      acknowledged = std::min<size_t>(std::max<size_t>(acknowledged, offset), has);
      inspector.on_server(kFirst + static_cast<uint32_t>(acknowledged));
    }
    const ByteSpan segment = input.subspan(3, size);
    input = input.subspan(3 + size);
    const auto inspected = inspector.on_client(kFirst + offset, segment);
    const bool passes = inspected.outcome == ModbusInspector::Outcome::kPass;
    CHECK(inspected.passed <= segment.size(), "more passes than came");
    const ByteSpan passed = passes ? segment : segment.first(inspected.passed);
    for (Server* server : {&first, &last}) server->take(offset, passed, acknowledged);
  }
  first.check(policy);
  last.check(policy);
}

}  // namespace
}  // namespace bulkhead::net::inspect

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::net::inspect::run({data, size});
  return 0;
}

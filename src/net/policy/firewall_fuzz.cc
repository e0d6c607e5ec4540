// Any frames between the ports of a segmented plant, in any order and at any time. Tables stay bounded, nothing passes
// from a port without a zone, and nothing at all comes back through a one-way conduit.
#include "net/policy/firewall.h"
#include "support/check.h"

namespace bulkhead::net::policy {
namespace {

constexpr size_t kConnections = 32;

void run(ByteSpan input) {
  const Plan plan{
      .zones = {"a", "b", "c"},
      .address_sets = {},
      .conduits = {
          {.name = "open", .from = "a", .to = "b", .services = {"modbus", "dns", "ping", "udp/1-65535"}},
          {.name = "inspected",
           .from = "a",
           .to = "b",
           .services = {"tcp/1502"},
           .modbus = inspect::ModbusPolicy{{{.functions = inspect::modbus_reads()}}},
           .refuse = Refuse::kAnswer},
          {.name = "diode", .from = "a", .to = "c", .services = {"udp/1-65535"}, .direction = Direction::kOneWay}}};
  Firewall firewall(CompiledPlan::compile(plan).value(), {.connection_count = kConnections, .connections_a_port = 16},
                    3);
  for (uint16_t port = 0; port < 3; ++port) firewall.set_zone(port, port);
  firewall.pick_up_until(uint64_t{1} << 32);
  uint64_t now = 1;
  while (input.size() >= 4) {
    const auto from = static_cast<switching::PortId>(input[0] % 4);
    const auto to = static_cast<switching::PortId>((input[0] >> 2) % 4);
    const size_t size = std::min<size_t>(input[1], input.size() - 4);
    now += uint64_t{input[2]} << (input[3] & 0x1F);
    const ByteSpan frame = input.subspan(4, size);
    input = input.subspan(4 + size);
    const frame::Headers headers = frame::read_headers(frame);
    const Verdict verdict =
        firewall.judge({.from = from, .to = to, .vlan = 1, .frame = frame, .headers = headers, .now_ns = now});
    CHECK(!verdict.passes() || (from != 3 && to != 3), "a port without a zone is cut off");
    CHECK(!verdict.passes() || from == to || from != 2, "nothing leaves the far end of a diode");
    CHECK(!verdict.passes() || from != 1 || to != 2, "zones without a conduit are apart");
    CHECK(firewall.connections().size() <= kConnections, "connections are bounded");
    CHECK(firewall.refusals().latest().size() <= 4 * 3 * RefusalLog::kRemembered, "refusals are bounded");
    (void)firewall.refusals().take_lines();
    for (const Answer& answer : firewall.take_answers()) {
      CHECK(frame::read_headers(answer.frame).fault == frame::Fault::kNone, "what the firewall says can be read");
    }
  }
}

}  // namespace
}  // namespace bulkhead::net::policy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bulkhead::net::policy::run({data, size});
  return 0;
}

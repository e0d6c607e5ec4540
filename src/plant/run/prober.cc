#include "plant/run/prober.h"

#include <algorithm>
#include <array>

#include "net/probe/questions.h"
#include "net/vhost/front_end.h"
#include "plant/compile.h"
#include "support/random.h"

namespace bulkhead::plant {
namespace {

constexpr unsigned kFramesATurn = 64;
constexpr uint16_t kFirstPort = 49152;

}  // namespace

Result<std::unique_ptr<Prober>> Prober::create(const Plant& plant, const MachineConfig& machine,
                                               const std::string& directory, uint64_t seed) {
  const auto card = std::ranges::find_if(machine.cards, [](const CardConfig& each) {
    return each.address && each.address->family == net::frame::Family::kIpv4;
  });
  if (card == machine.cards.end()) return fail("machine '{}': no IPv4 address to ask", machine.name);
  const SwitchConfig& on = plant.switch_of(*card);
  const ProbeConfig& ready = machine.ready;
  SeededRandom random(seed);
  net::probe::Question question{.own_address = *on.probe_address,
                                .address = *card->address,
                                .own_port = static_cast<uint16_t>(kFirstPort + random.below(16384)),
                                .port = ready.port,
                                .first_sequence = static_cast<uint32_t>(random.next_u64())};
  random.fill(question.own_mac.bytes);
  question.own_mac.bytes[0] = static_cast<uint8_t>((question.own_mac.bytes[0] & 0xFC) | 2);
  if (ready.kind == ProbeConfig::Kind::kModbus) net::probe::ask_modbus(question, ready.unit, ready.address);
  if (ready.kind == ProbeConfig::Kind::kHttp) net::probe::ask_http(question, machine.name, ready.path);
  if (ready.kind == ProbeConfig::Kind::kMqtt) net::probe::ask_mqtt(question);
  // In the machine's own zone, where everything passes.
  const GroupConfig* const group = probe_group_of(plant, *card);
  if (group == nullptr) return fail("machine '{}': nobody can ask it in its VLAN", machine.name);
  auto link =
      TRY(net::vhost::FrontEnd::create(fmt::format("{}/{}/group-{}.sock", directory, on.name, group->policy.name)));
  return std::unique_ptr<Prober>(new Prober(std::move(question), std::move(link)));
}

bool Prober::poll(uint64_t now_ns) {
  using State = net::probe::TcpProbe::State;
  if (!link_->link_up()) return false;
  if (probe_.state() == State::kBad) {
    if (failed_ns_ == 0) failed_ns_ = now_ns;
    if (now_ns - failed_ns_ < kAgain_ns) return false;
    failed_ns_ = 0;
    ++question_.own_port;
    if (question_.own_port < kFirstPort) question_.own_port = kFirstPort;
    question_.first_sequence += 100'000;
    probe_ = net::probe::TcpProbe(question_);
  }
  std::array<uint8_t, net::vhost::FrontEnd::kMaximumFrame> frame;
  for (unsigned count = 0; count < kFramesATurn; ++count) {
    net::frame::Offload offload;
    const size_t size = link_->receive(frame, offload);
    if (size == 0) break;
    for (const auto& answer : probe_.receive(ByteSpan(frame).first(size))) (void)link_->send(answer);
  }
  for (const auto& sent : probe_.poll(now_ns)) (void)link_->send(sent);
  return probe_.state() == State::kGood;
}

}  // namespace bulkhead::plant

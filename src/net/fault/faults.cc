#include "net/fault/faults.h"

#include <algorithm>
#include <tuple>

namespace bulkhead::net::fault {
namespace {

constexpr uint64_t kSecond_ns = 1'000'000'000;

}  // namespace

Result<> check_faults(const FaultConfig& config) {
  for (const auto& [name, share] :
       {std::pair("loss", config.lost), std::pair("duplication", config.duplicated),
        std::pair("reordering", config.reordered), std::pair("corruption", config.corrupted)}) {
    if (share > FaultConfig::kAlways) return fail("{} {}: of a million frames", name, share);
  }
  if (config.delay_ns > FaultConfig::kMostDelay_ns || config.jitter_ns > FaultConfig::kMostDelay_ns) {
    return fail("delay and jitter: at most {} s each", FaultConfig::kMostDelay_ns / kSecond_ns);
  }
  return {};
}

void Faults::set_config(const FaultConfig& config) {
  const auto line = [](const FaultConfig& of) { return std::tuple(of.delay_ns, of.jitter_ns, of.rate_bytes_a_second); };
  if (line(config) != line(config_)) line_free_ns_ = latest_ns_ = 0;
  config_ = config;
}

uint64_t Faults::arrival_ns(size_t size, uint64_t now_ns) {
  uint64_t sent_ns = now_ns;
  if (config_.rate_bytes_a_second != 0) {
    line_free_ns_ = std::max(line_free_ns_, now_ns) + size * kSecond_ns / config_.rate_bytes_a_second;
    sent_ns = line_free_ns_;
  }
  const uint64_t jitter_ns = random_.below(config_.jitter_ns + 1);
  if (happens(config_.reordered)) {
    ++counters_.reordered;
    return sent_ns;
  }
  // Jitter alone does not make frames overtake each other, as in a queue.
  latest_ns_ = std::max(latest_ns_, sent_ns + config_.delay_ns + jitter_ns);
  return latest_ns_;
}

bool Faults::has_room(size_t size) const {
  return under_way_.size() < kMaximumFrames && size <= kMaximumBytes - bytes_;
}

void Faults::put(std::vector<uint8_t> frame, uint64_t when_ns) {
  bytes_ += frame.size();
  under_way_.emplace(when_ns, std::move(frame));
}

// Every frame draws the same numbers whatever becomes of it, so that a change of one fault leaves the others' choices.
void Faults::send(ByteSpan frame, uint64_t now_ns) {
  const bool lost = happens(config_.lost), duplicated = happens(config_.duplicated),
             corrupted = happens(config_.corrupted);
  const uint64_t bit = random_.below(std::max<uint64_t>(frame.size() * 8, 1));
  // What is turned away at the door takes no time on the line.
  if (!has_room(frame.size())) {
    ++counters_.overflowed;
    return;
  }
  const uint64_t when_ns = arrival_ns(frame.size(), now_ns);
  if (lost || config_.is_cut) {
    ++counters_.lost;
    return;
  }
  std::vector<uint8_t> bytes(frame.begin(), frame.end());
  if (corrupted && !bytes.empty()) {
    bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] ^ 1u << bit % 8);
    ++counters_.corrupted;
  }
  put(bytes, when_ns);
  if (duplicated && has_room(bytes.size())) {
    ++counters_.duplicated;
    put(std::move(bytes), when_ns);
  }
}

std::vector<uint8_t> Faults::receive(uint64_t now_ns) {
  const auto first = under_way_.begin();
  if (first == under_way_.end() || first->first > now_ns) return {};
  std::vector<uint8_t> frame = std::move(first->second);
  bytes_ -= frame.size();
  under_way_.erase(first);
  ++counters_.passed;
  return frame;
}

}  // namespace bulkhead::net::fault

// How long a switch has been away, and what a card does about it: when it looks for the switch again, and when its
// guest learns of it. A function of the times that it is given.
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>

namespace bulkhead::net::vhost {

class Absence {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;
  // To look whether anybody listens costs one call; most switches that go are back within moments.
  static constexpr Milliseconds kSoon{4}, kLater{20};
  static constexpr std::chrono::seconds kSoonFor{5};
  // One that is there and takes nobody, because the port is taken, is asked seldomer and seldomer.
  static constexpr Milliseconds kFirstRefusal{4}, kLastRefusal{100};
  // A session as long as this was no refusal.
  static constexpr std::chrono::seconds kSession{1};
  // A guest that learned of a shorter absence would forget its neighbours, and ask for them before they are back.
  static constexpr Milliseconds kUnnoticed{500};

  explicit Absence(Clock::time_point since) : since_(since) {}

  // A session that began then has ended now.
  void begin(Clock::time_point session_began, Clock::time_point now) {
    since_ = now;
    if (now - session_began >= kSession) refusal_ = kFirstRefusal;
  }
  // Until the switch is looked for again, which has just been in vain. is_there: it listens.
  [[nodiscard]] Milliseconds pause(bool is_there, Clock::time_point now) {
    if (!is_there) return now - since_ < kSoonFor ? kSoon : kLater;
    return std::exchange(refusal_, std::min(2 * refusal_, kLastRefusal));
  }
  [[nodiscard]] bool is_noticed(Clock::time_point now) const { return now - since_ >= kUnnoticed; }

 private:
  Clock::time_point since_;
  Milliseconds refusal_ = kFirstRefusal;
};

}  // namespace bulkhead::net::vhost

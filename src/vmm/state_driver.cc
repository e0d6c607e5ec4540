#include "vmm/state_driver.h"

#include <utility>

namespace bulkhead::vmm {
namespace {

uint32_t bit(StateDriver::Holder holder) {
  return 1u << static_cast<unsigned>(holder);
}

}  // namespace

StateDriver::StateDriver(Board& board, std::vector<VcpuSlot> vcpus, Policy policy)
    : board_(board), policy_(policy), vcpu_stops_(vcpus.size()) {
  for (uint32_t i = 0; i < vcpus.size(); ++i) {
    vcpus_.push_back(
        std::make_unique<VcpuThread>(i, vcpus[i].vcpu, vcpus[i].io,
                                     [this](uint32_t index, cpu::StopReason reason) { on_vcpu_stop(index, reason); }));
  }
  thread_ = Thread("state-driver", [this] { body(); });
}

StateDriver::~StateDriver() {
  post(kEndThread);
  thread_.join();
  vcpus_.clear();
}

void StateDriver::post(Event event) {
  LockGuard guard(mutex_);
  events_ |= event;
  work_.notify_one();
}

void StateDriver::request_exit(uint8_t status) {
  LockGuard guard(mutex_);
  if (!debug_status_) debug_status_ = status;
  events_ |= kDebugExit;
  work_.notify_one();
}

void StateDriver::shut_down() {
  LockGuard guard(mutex_);
  events_ |= asked_to_shut_down_ ? kStop : kButton;
  asked_to_shut_down_ = true;
  work_.notify_one();
}

void StateDriver::on_vcpu_stop(uint32_t index, cpu::StopReason reason) {
  LockGuard guard(mutex_);
  vcpu_stops_[index] = reason;
  events_ |= kVcpuStopped;
  work_.notify_one();
}

bool StateDriver::call(std::function<void()> work, bool at_rest) {
  const auto item = std::make_shared<Call>(Call{std::move(work), at_rest});
  LockGuard guard(mutex_);
  if (outcome_ || thread_ended_) return false;
  calls_.push_back(item);
  work_.notify_one();
  while (!item->done && !outcome_ && !thread_ended_) done_.wait(mutex_);
  return item->done;
}

bool StateDriver::call_at_rest(std::function<void()> work) {
  return call(std::move(work), true);
}

void StateDriver::hold(Holder holder) {
  call([this, holder] { holders_ |= bit(holder); }, false);
}

void StateDriver::release(Holder holder) {
  call(
      [this, holder] {
        holders_ &= ~bit(holder);
        if (holder == Holder::kDebugger) only_vcpu_.reset();
      },
      false);
}

void StateDriver::release_one(uint32_t vcpu_index) {
  call(
      [this, vcpu_index] {
        holders_ &= ~bit(Holder::kDebugger);
        only_vcpu_ = vcpu_index;
      },
      false);
}

void StateDriver::set_debug_listener(std::function<void(uint32_t)> on_debug_stop) {
  LockGuard guard(mutex_);
  on_debug_stop_ = std::move(on_debug_stop);
}

Outcome StateDriver::wait() {
  LockGuard guard(mutex_);
  while (!outcome_) done_.wait(mutex_);
  return *outcome_;
}

bool StateDriver::ended() {
  LockGuard guard(mutex_);
  return outcome_.has_value();
}

bool StateDriver::held_by(Holder holder) {
  LockGuard guard(mutex_);
  return (holders_seen_ & bit(holder)) != 0;
}

void StateDriver::body() {
  while (true) {
    uint32_t events = 0;
    std::shared_ptr<Call> call;
    {
      LockGuard guard(mutex_);
      while (events_ == 0 && calls_.empty()) work_.wait(mutex_);
      events = std::exchange(events_, 0);
      if (events == 0) {
        call = calls_.front();
        calls_.pop_front();
      }
    }
    if ((events & kEndThread) != 0) break;
    if (events != 0) handle_events(events);
    if (call != nullptr && !ended()) {
      if (call->at_rest) come_to_rest();
      call->work();
    }
    apply_holds();
    LockGuard guard(mutex_);
    holders_seen_ = holders_;
    if (call == nullptr) continue;
    call->done = !outcome_.has_value();
    done_.notify_all();
  }
  come_to_rest();
  LockGuard guard(mutex_);
  thread_ended_ = true;
  done_.notify_all();
}

// What ends the VM comes first: of a guest that resets and powers off at once, the end is what counts.
void StateDriver::handle_events(uint32_t events) {
  using Kind = Outcome::Kind;
  if (ended()) return;
  if ((events & kUserPause) != 0) holders_ |= bit(Holder::kUser);
  if ((events & kUserResume) != 0) holders_ &= ~(bit(Holder::kUser) | bit(Holder::kDisk));
  if ((events & kDiskPause) != 0) holders_ |= bit(Holder::kDisk);
  if ((events & kStop) != 0) return end({.kind = Kind::kStopped});
  if ((events & kQuit) != 0) return end({.kind = Kind::kQuit});
  if ((events & kDebugExit) != 0) {
    uint8_t status = 0;
    {
      LockGuard guard(mutex_);
      status = debug_status_.value_or(0);
    }
    return end({.kind = Kind::kDebugExit, .debug_status = status});
  }
  if ((events & kPowerOff) != 0) return end({.kind = Kind::kPowerOff});
  if ((events & kVcpuStopped) != 0) handle_vcpu_stops();
  if (ended()) return;
  if ((events & kGuestReset) != 0 && !policy_.reboot) {
    const auto panic = board_.panic_message();
    return end({.kind = panic ? Kind::kPanic : Kind::kReset, .detail = panic.value_or("")});
  }
  if ((events & (kGuestReset | kUserReset)) != 0) return do_reset();
  if ((events & kButton) != 0) board_.press_power_button();
}

void StateDriver::handle_vcpu_stops() {
  std::vector<std::optional<cpu::StopReason>> stops(vcpus_.size());
  std::function<void(uint32_t)> on_debug_stop;
  {
    LockGuard guard(mutex_);
    stops.swap(vcpu_stops_);
    on_debug_stop = on_debug_stop_;
  }
  std::optional<uint32_t> debugged;
  for (uint32_t i = 0; i < stops.size(); ++i) {
    if (!stops[i]) continue;
    if (*stops[i] == cpu::StopReason::kInternalError) {
      return end(
          {.kind = Outcome::Kind::kEngineError, .detail = fmt::format("vCPU {}: {}", i, vcpus_[i]->vcpu().error())});
    }
    if (*stops[i] == cpu::StopReason::kShutdown) {
      const auto panic = board_.panic_message();
      return end({.kind = panic ? Outcome::Kind::kPanic : Outcome::Kind::kTripleFault,
                  .detail = panic ? *panic : describe_fault(i)});
    }
    if (*stops[i] == cpu::StopReason::kDebug && !debugged) debugged = i;
  }
  if (!debugged) return;
  holders_ |= bit(Holder::kDebugger);
  come_to_rest();
  if (on_debug_stop) on_debug_stop(*debugged);
}

std::string StateDriver::describe_fault(uint32_t index) {
  come_to_rest();
  const cpu::State state = vcpus_[index]->vcpu().get_state();
  return fmt::format("vCPU {} at cs:rip {:04x}:{:#x}, cr0 {:#x}, cr2 {:#x}, cr3 {:#x}", index,
                     state.segments[cpu::kCs].selector, state.rip, state.cr0, state.cr2, state.cr3);
}

void StateDriver::do_reset() {
  come_to_rest();
  // What waits for the disk is of the life that ends here.
  holders_ &= ~bit(Holder::kDisk);
  {
    // Events of the life that ends here are not of the next one; the user's requests are kept.
    LockGuard guard(mutex_);
    events_ &= ~static_cast<uint32_t>(kPowerOff | kGuestReset | kDebugExit | kVcpuStopped | kDiskPause);
    for (auto& stop : vcpu_stops_) stop.reset();
    debug_status_.reset();
    asked_to_shut_down_ = false;
  }
  if (const auto done = board_.reset(); !done) {
    end({.kind = Outcome::Kind::kHostError, .detail = done.error().message});
  }
}

void StateDriver::end(Outcome outcome) {
  come_to_rest();
  LockGuard guard(mutex_);
  outcome_ = std::move(outcome);
  done_.notify_all();
}

void StateDriver::come_to_rest() {
  if (!running_) return;
  for (auto& vcpu : vcpus_) vcpu->ask_to_park();
  for (auto& vcpu : vcpus_) vcpu->wait_until_parked();
  board_.pause();
  running_ = false;
}

void StateDriver::apply_holds() {
  {
    LockGuard guard(mutex_);
    // A vCPU that stopped by itself stays where it is until that has been looked at.
    if (outcome_ || (events_ & kVcpuStopped) != 0) return;
  }
  if (holders_ != 0) return come_to_rest();
  if (running_ && running_only_ == only_vcpu_) return;
  come_to_rest();
  board_.resume();
  running_ = true;
  running_only_ = only_vcpu_;
  for (uint32_t i = 0; i < vcpus_.size(); ++i) {
    if (!only_vcpu_ || *only_vcpu_ == i) vcpus_[i]->let_run();
  }
}

}  // namespace bulkhead::vmm

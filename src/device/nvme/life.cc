// The life of the controller behind its registers, on the worker: enabled, worked on, shut down, reset, paused; the
// rings and the interrupts (NVM Express 1.4, 4.1, 7.3, 7.5, 7.6).
#include <algorithm>
#include <atomic>
#include <utility>

#include "device/nvme/controller.h"

namespace bulkhead::device::nvme {

using namespace spec::nvme;

Controller::~Controller() {
  if (connected_) {
    worker_->run_and_wait([this] { phase_ = Phase::kDraining; });
    worker_->wait_until([this] { return in_flight_ == 0; });
  }
  worker_.reset();
}

// ---- Enable, shutdown and reset ----

void Controller::on_control() {
  if (paused_) return;
  bool reset = false;
  bool shutdown = false;
  bool enabled = false;
  {
    const LockGuard lock(mutex_);
    reset = std::exchange(reset_requested_, false);
    shutdown = std::exchange(shutdown_requested_, false);
    enabled = (registers_.configuration & kConfigEnable) != 0;
  }
  if (reset) begin_reset();
  if (shutdown && !reset) shut_down();
  if (enabled && phase_ == Phase::kDisabled) enable();
}

void Controller::set_status(uint32_t clear, uint32_t set) {
  const LockGuard lock(mutex_);
  registers_.status = (registers_.status & ~clear) | set;
}

void Controller::enable() {
  Registers registers;
  {
    const LockGuard lock(mutex_);
    registers = registers_;
    // What was rung before has no meaning.
    bells_.fill({});
    stray_bell_ = false;
  }
  const uint32_t page_shift = registers.configuration >> kConfigPageSizeShift & 0xF;
  const uint32_t command_set = registers.configuration >> kConfigCommandSetShift & 7;
  const uint32_t arbitration = registers.configuration >> kConfigArbitrationShift & 7;
  page_size_ = 4096ull << std::min(page_shift, kMaximumPageShift);
  SubmissionQueue submission{.base = registers.admin_submission_base, .size = (registers.admin_attributes & 0xFFF) + 1};
  CompletionQueue completion{.base = registers.admin_completion_base,
                             .size = (registers.admin_attributes >> 16 & 0xFFF) + 1,
                             .interrupts = true};
  const bool placed = submission.size >= 2 && completion.size >= 2 &&
                      is_io_queue_base(submission.base, uint64_t{submission.size} << kSubmissionEntryShift) &&
                      is_io_queue_base(completion.base, uint64_t{completion.size} << kCompletionEntryShift);
  if (!placed || page_shift > kMaximumPageShift || command_set != 0 || arbitration != 0) {
    if (fault_limit_.allow()) {
      log::warning("{}: the admin queues or CC make no sense: fatal status ({} such faults of the guest)", naming_.name,
                   fault_limit_.count());
    }
    phase_ = Phase::kFailed;
    set_status(0, kStatusFatal);
    return;
  }
  submission_[0] = submission;
  completion_[0] = std::move(completion);
  phase_ = Phase::kReady;
  set_status(0, kStatusReady);
}

// Buffers of commands under way are the controller's until they complete: until then the driver reads CSTS.RDY.
void Controller::begin_reset() {
  phase_ = Phase::kDraining;
  finish_reset_when_idle();
}

void Controller::forget_driver() {
  for (const uint32_t slot : std::exchange(waiting_, {})) {
    commands_[slot].used = false;
    free_slots_.push_back(slot);
  }
  submission_.fill({});
  completion_.fill({});
  features_ = {};
  event_requests_.clear();
  events_.clear();
  error_events_masked_ = false;
  notices_masked_ = false;
  changed_namespaces_ = 0;
  page_size_ = 4096;
}

void Controller::finish_reset_when_idle() {
  if (phase_ != Phase::kDraining || in_flight_ != 0) return;
  forget_driver();
  phase_ = Phase::kDisabled;
  bool enabled = false;
  {
    const LockGuard lock(mutex_);
    registers_.status = 0;
    registers_.interrupt_mask = 0;
    bells_.fill({});
    stray_bell_ = false;
    shutdown_requested_ = false;
    enabled = (registers_.configuration & kConfigEnable) != 0;
  }
  update_pin();
  if (enabled) enable();
}

// What the driver was told is written is safe before the shutdown is complete (7.6.2).
void Controller::shut_down() {
  if (phase_ != Phase::kReady) {
    set_status(kStatusShutdownMask, kStatusShutdownComplete);
    return;
  }
  next_shutdown_flush_ = 0;
  ++in_flight_;
  flush_for_shutdown();
}

// One namespace after the other.
void Controller::flush_for_shutdown() {
  namespaces_[next_shutdown_flush_++].disk.submit(block::Request::flush([this](block::Status status) {
    {
      const LockGuard lock(mutex_);
      finished_.push_back({kShutdownSlot, 0, status});
    }
    wake_event_->signal();
  }));
}

void Controller::reset() {
  {
    const LockGuard lock(mutex_);
    registers_ = {};
    reset_requested_ = false;
    shutdown_requested_ = false;
  }
  worker_->run_and_wait([this] { begin_reset(); });
  worker_->wait_until([this] { return phase_ != Phase::kDraining; });
  reset_config();
}

void Controller::pause() {
  worker_->run_and_wait([this] {
    on_control();
    take_bells();
    send_interrupts();
    paused_ = true;
  });
  worker_->wait_until([this] { return in_flight_ == 0 && phase_ != Phase::kDraining; });
}

void Controller::resume() {
  worker_->run_and_wait([this] {
    paused_ = false;
    tell_of_growth();
    for (const uint32_t slot : std::exchange(waiting_, {})) begin(slot);
    control_event_->signal();
    bell_event_->signal();
  });
}

// ---- Doorbells ----

void Controller::on_bells() {
  if (paused_) return;
  take_bells();
  process_queues();
}

void Controller::take_bells() {
  std::array<Bell, 2 * kQueueCount> bells;
  bool stray = false;
  {
    const LockGuard lock(mutex_);
    bells = std::exchange(bells_, {});
    stray = std::exchange(stray_bell_, false);
  }
  if (phase_ != Phase::kReady) return;
  if (stray) report_event(kEventInvalidDoorbell);
  for (size_t i = 0; i < bells.size(); ++i) {
    if (bells[i].rung) take_bell(i, bells[i].value);
  }
}

// The value is checked here, where it is used: the queue may have come or gone since it was written.
void Controller::take_bell(size_t index, uint32_t value) {
  const size_t id = index / 2;
  const bool is_tail = index % 2 == 0;
  if (is_tail ? !submission_[id].exists() : !completion_[id].exists()) {
    report_event(kEventInvalidDoorbell);
    return;
  }
  if (is_tail) {
    SubmissionQueue& queue = submission_[id];
    if (value < queue.size) {
      queue.tail = value;
      return;
    }
  } else {
    CompletionQueue& queue = completion_[id];
    if (value < queue.size && (value + queue.size - queue.head) % queue.size <= queue.filled()) {
      queue.head = value;
      return;
    }
  }
  report_event(kEventInvalidDoorbellValue);
}

// ---- Queues ----

void Controller::process_queues() {
  if (paused_ || phase_ != Phase::kReady || !bus_master_enabled()) return;
  place_waiting();
  bool more = false;
  for (uint16_t id = 0; id < kQueueCount && phase_ == Phase::kReady; ++id) more |= process_queue(id);
  send_interrupts();
  // More than its share: others first.
  if (more) bell_event_->signal();
}

// True when more could be done at once.
bool Controller::process_queue(uint16_t id) {
  SubmissionQueue& queue = submission_[id];
  for (uint32_t taken = 0; queue.exists() && !queue.deleting && !queue.empty(); ++taken) {
    // Both are followed by a turn of their own: a place in the completion queue, a command that ends.
    if (!completion_[queue.completion_id].waiting.empty() || free_slots_.empty()) return false;
    if (taken == std::min(kBudget, queue.size)) return true;
    const auto entry = memory_.read_object<Entry>({queue.base + (uint64_t{queue.head} << kSubmissionEntryShift)});
    queue.head = (queue.head + 1) % queue.size;
    if (!entry) return false;  // RAM does not go away
    ++queue.in_flight;
    if (id == 0) {
      execute_admin(*entry);
    } else {
      execute_io(id, *entry);
    }
  }
  return false;
}

void Controller::post(uint16_t queue_id, uint16_t command_id, Status status, uint32_t result, uint32_t namespace_id) {
  SubmissionQueue& queue = submission_[queue_id];
  if (!queue.exists()) return;
  --queue.in_flight;
  if (queue.deleting) {
    finish_deletion(queue_id);
    return;
  }
  auto field = static_cast<uint16_t>(status);
  if (status != Status::kSuccess) {
    ++counters_.errors;
    // The same again may go well only where the disk below was at fault.
    const bool passing = status == Status::kWriteFault || status == Status::kCapacityExceeded ||
                         status == Status::kInternalError || status == Status::kAbortRequested;
    if (!passing) field |= kStatusDoNotRetry;
    if (error_log_.size() == kErrorLogLimit) error_log_.pop_back();
    error_log_.push_front({.error_count = counters_.errors,
                           .submission_id = queue_id,
                           .command_id = command_id,
                           .status = static_cast<uint16_t>(field << 1),
                           .parameter = 0xFFFF,
                           .namespace_id = namespace_id});
  }
  CompletionQueue& target = completion_[queue.completion_id];
  const CompletionEntry entry{.result = result,
                              .submission_head = static_cast<uint16_t>(queue.head),
                              .submission_id = queue_id,
                              .command_id = command_id,
                              .status = static_cast<uint16_t>(field << 1)};
  if (target.full() || !target.waiting.empty()) {
    target.waiting.push_back(entry);
  } else {
    place(target, entry);
  }
}

// The phase tag is what a driver polls, so it is written last.
void Controller::place(CompletionQueue& queue, const CompletionEntry& entry) {
  CompletionEntry tagged = entry;
  tagged.status |= queue.phase ? 1 : 0;
  const uint64_t address = queue.base + (uint64_t{queue.tail} << kCompletionEntryShift);
  constexpr size_t kLast = offsetof(CompletionEntry, command_id);
  const bool written = memory_.write({address}, as_bytes(tagged).first(kLast));
  std::atomic_thread_fence(std::memory_order_release);
  if (!written || !memory_.write({address + kLast}, as_bytes(tagged).subspan(kLast))) return;
  queue.tail = (queue.tail + 1) % queue.size;
  if (queue.tail == 0) queue.phase = !queue.phase;
  queue.posted = true;
}

void Controller::place_waiting() {
  for (CompletionQueue& queue : completion_) {
    while (queue.exists() && !queue.waiting.empty() && !queue.full()) {
      place(queue, queue.waiting.front());
      queue.waiting.pop_front();
    }
  }
}

void Controller::finish_deletion(uint16_t id) {
  SubmissionQueue& queue = submission_[id];
  if (!queue.deleting || queue.in_flight != 0) return;
  const uint16_t command_id = queue.delete_command_id;
  // Answers that the driver does not wait for any more.
  std::erase_if(completion_[queue.completion_id].waiting,
                [id](const CompletionEntry& entry) { return entry.submission_id == id; });
  queue = {};
  post(0, command_id, Status::kSuccess, 0);
}

// ---- Interrupts ----

void Controller::send_interrupts() {
  const bool by_message = msix_enabled();
  for (CompletionQueue& queue : completion_) {
    if (std::exchange(queue.posted, false) && queue.interrupts && by_message) msix()->notify(queue.vector);
  }
  if (!by_message) update_pin();
}

void Controller::update_pin() {
  bool asserted = false;
  {
    const LockGuard lock(mutex_);
    for (const CompletionQueue& queue : completion_) {
      const bool masked = (registers_.interrupt_mask & 1) != 0;
      asserted |= queue.exists() && queue.interrupts && queue.filled() != 0 && !masked;
    }
  }
  set_interrupt_pin_level(asserted);
}

// One event of a kind waits at most, and those of a type are told once until the log of that type is read (5.2).
void Controller::report_event(uint32_t event) {
  if ((event & kEventTypeMask) == kEventTypeError && fault_limit_.allow()) {
    log::warning("{}: a wrong doorbell or value ({} such faults of the guest)", naming_.name, fault_limit_.count());
  }
  if (std::ranges::find(events_, event) == events_.end()) events_.push_back(event);
  tell_events();
}

void Controller::tell_events() {
  const auto mask_of = [&](uint32_t event) -> bool& {
    return (event & kEventTypeMask) == kEventTypeNotice ? notices_masked_ : error_events_masked_;
  };
  while (!event_requests_.empty() && bus_master_enabled()) {
    const auto next = std::ranges::find_if(events_, [&](uint32_t event) { return !mask_of(event); });
    if (next == events_.end()) return;
    const uint32_t event = *next;
    events_.erase(next);
    mask_of(event) = true;
    const uint16_t command_id = event_requests_.front();
    event_requests_.pop_front();
    post(0, command_id, Status::kSuccess, event);
  }
}

void Controller::disk_grew(size_t index) {
  worker_->run_and_wait([this, index] {
    if (phase_ == Phase::kReady) changed_namespaces_ |= uint64_t{1} << index;
    if (!paused_) tell_of_growth();
  });
}

void Controller::tell_of_growth() {
  const bool wanted = (features_.async_events & kNamespaceNotices) != 0;
  if (changed_namespaces_ == 0 || notices_masked_ || !wanted) return;
  report_event(kEventNamespaceChanged);
  send_interrupts();
}

// ---- What the disk completed ----

void Controller::on_wake() {
  std::vector<Finished> finished;
  {
    const LockGuard lock(mutex_);
    finished.swap(finished_);
  }
  for (const Finished& part : finished) {
    if (part.slot == kShutdownSlot) {
      if (part.status != block::Status::kRetry && phase_ == Phase::kReady &&
          next_shutdown_flush_ < namespaces_.size()) {
        flush_for_shutdown();
        continue;
      }
      --in_flight_;
      if (part.status == block::Status::kRetry) {
        // Once more when the machine goes on.
        const LockGuard lock(mutex_);
        shutdown_requested_ = true;
        continue;
      }
      set_status(kStatusShutdownMask, kStatusShutdownComplete);
    } else {
      CHECK(commands_[part.slot].used && commands_[part.slot].generation == part.generation,
            "a completion for a command that is gone");
      advance(part.slot, part.status);
    }
  }
  if (phase_ == Phase::kDraining) {
    finish_reset_when_idle();
  } else if (phase_ == Phase::kReady && !finished.empty()) {
    send_interrupts();
    process_queues();
  }
}

}  // namespace bulkhead::device::nvme

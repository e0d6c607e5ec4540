// Saved state of the controller: configuration space, registers, rings, features, and what the driver waits for. It is
// taken with nothing in flight; every index of a stream is checked before it is used (DEVICE_SAFETY rule 18).
#include "device/nvme/controller.h"

#include <bit>

namespace bulkhead::device::nvme {

using namespace spec::nvme;

namespace {

constexpr size_t kMaximumWaiting = 2 * Controller::kMaximumInFlight;

// A command that the disk wants to see again.
struct SavedCommand {
  uint16_t queue;
  uint8_t reserved[6];
  SubmissionEntry entry;
};
static_assert(sizeof(SavedCommand) == 72);

// A list of structures of fixed layout.
template <typename Container>
void put_list(StateWriter& writer, std::string_view name, const Container& list) {
  std::vector<uint8_t> bytes;
  for (const auto& item : list) {
    const ByteSpan item_bytes = as_bytes(item);
    bytes.insert(bytes.end(), item_bytes.begin(), item_bytes.end());
  }
  writer.put_bytes(name, bytes);
}

template <typename Container>
Result<Container> get_list(const StateReader& reader, std::string_view name, size_t limit) {
  using Item = typename Container::value_type;
  const ByteSpan bytes = TRY(reader.get_bytes_up_to(name, limit * sizeof(Item)));
  if (bytes.size() % sizeof(Item) != 0) return fail("{}: {} is cut off", reader.path(), name);
  Container list;
  for (size_t i = 0; i < bytes.size(); i += sizeof(Item)) list.push_back(load<Item>(&bytes[i]));
  return list;
}

}  // namespace

void Controller::save_state(StateWriter& writer) const {
  worker_->wait_until([&] {
    if (in_flight_ != 0 || phase_ == Phase::kDraining) return false;
    save_on_worker(writer);
    return true;
  });
}

void Controller::save_on_worker(StateWriter& writer) const {
  save_config(writer);
  {
    const LockGuard lock(mutex_);
    writer.put("interrupt_mask", registers_.interrupt_mask)
        .put("configuration", registers_.configuration)
        .put("status", registers_.status)
        .put("admin_attributes", registers_.admin_attributes)
        .put("admin_submission_base", registers_.admin_submission_base)
        .put("admin_completion_base", registers_.admin_completion_base);
  }
  // The page size in use is the one of the moment when the controller was enabled.
  for (size_t i = 0; i < namespaces_.size(); ++i) {
    writer.put(fmt::format("namespace{}_size", i + 1), namespaces_[i].disk.geometry().size);
  }
  writer.put("namespace_count", namespaces_.size()).put("phase", phase_).put("page_size", page_size_);
  for (uint16_t id = 0; id < kQueueCount; ++id) {
    if (const SubmissionQueue& queue = submission_[id]; queue.exists()) {
      writer.child(fmt::format("submission{}", id))
          .put("base", queue.base)
          .put("size", queue.size)
          .put("completion", queue.completion_id)
          .put("head", queue.head)
          .put("tail", queue.tail);
    }
    if (const CompletionQueue& queue = completion_[id]; queue.exists()) {
      StateWriter child = writer.child(fmt::format("completion{}", id));
      child.put("base", queue.base)
          .put("size", queue.size)
          .put("head", queue.head)
          .put("tail", queue.tail)
          .put("phase", queue.phase)
          .put("interrupts", queue.interrupts)
          .put("vector", queue.vector);
      put_list(child, "waiting", queue.waiting);
    }
  }
  writer.put_object("features", features_).put_object("counters", counters_);
  writer.put("error_events_masked", error_events_masked_);
  writer.put("notices_masked", notices_masked_).put("changed_namespaces", changed_namespaces_);
  std::vector<SavedCommand> waiting;
  for (const uint32_t slot : waiting_) waiting.push_back({commands_[slot].queue, {}, commands_[slot].entry});
  put_list(writer, "waiting", waiting);
  put_list(writer, "event_requests", event_requests_);
  put_list(writer, "events", events_);
  put_list(writer, "error_log", error_log_);
}

Result<> Controller::restore_state(const StateReader& reader) {
  Result<> result;
  worker_->wait_until([&] {
    if (in_flight_ != 0 || phase_ == Phase::kDraining) return false;
    forget_driver();
    phase_ = Phase::kDisabled;
    result = restore_on_worker(reader);
    if (!result) {
      forget_driver();
      phase_ = Phase::kDisabled;
    }
    return true;
  });
  TRY(std::move(result));
  TRY(restore_config(reader));
  worker_->run_and_wait([this] { update_pin(); });
  control_event_->signal();
  bell_event_->signal();
  return {};
}

Result<> Controller::restore_on_worker(const StateReader& reader) {
  if (const uint64_t count = TRY(reader.get("namespace_count")); count != namespaces_.size()) {
    return fail("{}: saved with {} namespaces, not {}", reader.path(), count, namespaces_.size());
  }
  for (size_t i = 0; i < namespaces_.size(); ++i) {
    const uint64_t size = TRY(reader.get(fmt::format("namespace{}_size", i + 1)));
    if (const uint64_t here = namespaces_[i].disk.geometry().size; size != here) {
      return fail("{}: the disk of namespace {} had {} bytes, this one has {}", reader.path(), i + 1, size, here);
    }
  }
  Registers registers;
  registers.interrupt_mask = static_cast<uint32_t>(TRY(reader.get("interrupt_mask", UINT32_MAX)));
  registers.configuration = static_cast<uint32_t>(TRY(reader.get("configuration", kConfigWritable)));
  constexpr uint32_t kAnyStatus = kStatusReady | kStatusFatal | kStatusShutdownMask;
  registers.status = static_cast<uint32_t>(TRY(reader.get("status", kAnyStatus)));
  registers.admin_attributes = static_cast<uint32_t>(TRY(reader.get("admin_attributes", 0x0FFF'0FFF)));
  registers.admin_submission_base = TRY(reader.get("admin_submission_base"));
  registers.admin_completion_base = TRY(reader.get("admin_completion_base"));
  const auto phase = static_cast<Phase>(TRY(reader.get("phase", static_cast<uint64_t>(Phase::kFailed))));
  const uint32_t expected = phase == Phase::kReady    ? kStatusReady
                            : phase == Phase::kFailed ? kStatusFatal
                                                      : uint32_t{0};
  if ((registers.status & (kStatusReady | kStatusFatal)) != expected) {
    return fail("{}: status {:#x} in phase {}", reader.path(), registers.status, static_cast<unsigned>(phase));
  }
  const uint64_t page_size = TRY(reader.get("page_size", 4096ull << kMaximumPageShift));
  if (page_size < 4096 || !std::has_single_bit(page_size)) {
    return fail("{}: pages of {} bytes", reader.path(), page_size);
  }
  if (phase == Phase::kReady) {
    page_size_ = page_size;
    TRY(restore_queues(reader));
    TRY(restore_features(reader));
    for (const SavedCommand& saved : TRY(get_list<std::vector<SavedCommand>>(reader, "waiting", kMaximumInFlight))) {
      if (saved.queue == 0 || saved.queue >= kQueueCount || !submission_[saved.queue].exists()) {
        return fail("{}: a command of queue {}", reader.path(), saved.queue);
      }
      if (find_namespace(saved.entry.namespace_id) == nullptr && !is_flush_of_all(saved.entry)) {
        return fail("{}: a command of namespace {:#x}", reader.path(), saved.entry.namespace_id);
      }
      const uint32_t slot = free_slots_.back();
      free_slots_.pop_back();
      commands_[slot].used = true;
      commands_[slot].queue = saved.queue;
      commands_[slot].entry = saved.entry;
      ++submission_[saved.queue].in_flight;
      waiting_.push_back(slot);
    }
  }
  counters_ = TRY(reader.get_object<Counters>("counters"));
  error_log_ = TRY(get_list<std::deque<ErrorLogEntry>>(reader, "error_log", kErrorLogLimit));
  phase_ = phase;
  const LockGuard lock(mutex_);
  registers_ = registers;
  reset_requested_ = false;
  // Its flush is to be repeated.
  shutdown_requested_ = (registers.status & kStatusShutdownMask) == kStatusShutdownOccurring;
  stray_bell_ = false;
  bells_.fill({});
  return {};
}

Result<> Controller::restore_queues(const StateReader& reader) {
  for (uint16_t id = 0; id < kQueueCount; ++id) {
    const std::string name = fmt::format("completion{}", id);
    if (!reader.has(name)) continue;
    const StateReader child = TRY(reader.child(name));
    CompletionQueue queue;
    queue.base = TRY(child.get("base"));
    queue.size = static_cast<uint32_t>(TRY(child.get("size", id == 0 ? kMaximumAdminQueueSize : kMaximumQueueSize)));
    if (queue.size < 2 || !is_io_queue_base(queue.base, uint64_t{queue.size} << kCompletionEntryShift)) {
      return fail("{}: {} entries at {:#x} are no queue", child.path(), queue.size, queue.base);
    }
    queue.head = static_cast<uint32_t>(TRY(child.get("head", queue.size - 1)));
    queue.tail = static_cast<uint32_t>(TRY(child.get("tail", queue.size - 1)));
    queue.phase = TRY(child.get_flag("phase"));
    queue.interrupts = TRY(child.get_flag("interrupts"));
    queue.vector = static_cast<uint16_t>(TRY(child.get("vector", kQueueCount - 1)));
    queue.waiting = TRY(get_list<std::deque<CompletionEntry>>(child, "waiting", kMaximumWaiting));
    completion_[id] = std::move(queue);
  }
  for (uint16_t id = 0; id < kQueueCount; ++id) {
    const std::string name = fmt::format("submission{}", id);
    if (!reader.has(name)) continue;
    const StateReader child = TRY(reader.child(name));
    SubmissionQueue queue;
    queue.base = TRY(child.get("base"));
    queue.size = static_cast<uint32_t>(TRY(child.get("size", id == 0 ? kMaximumAdminQueueSize : kMaximumQueueSize)));
    if (queue.size < 2 || !is_io_queue_base(queue.base, uint64_t{queue.size} << kSubmissionEntryShift)) {
      return fail("{}: {} entries at {:#x} are no queue", child.path(), queue.size, queue.base);
    }
    queue.completion_id = static_cast<uint16_t>(TRY(child.get("completion", kQueueCount - 1)));
    if ((id == 0) != (queue.completion_id == 0) || !completion_[queue.completion_id].exists()) {
      return fail("{}: completion queue {}", child.path(), queue.completion_id);
    }
    queue.head = static_cast<uint32_t>(TRY(child.get("head", queue.size - 1)));
    queue.tail = static_cast<uint32_t>(TRY(child.get("tail", queue.size - 1)));
    submission_[id] = queue;
  }
  if (!submission_[0].exists()) return fail("{}: ready without an admin queue", reader.path());
  return {};
}

Result<> Controller::restore_features(const StateReader& reader) {
  features_ = TRY(reader.get_object<Features>("features"));
  if ((features_.queue_count & 0xFFFF) >= kIoQueueCount || features_.queue_count >> 16 >= kIoQueueCount) {
    return fail("{}: queue count {:#x}", reader.path(), features_.queue_count);
  }
  error_events_masked_ = TRY(reader.get_flag("error_events_masked"));
  notices_masked_ = TRY(reader.get_flag("notices_masked"));
  changed_namespaces_ = TRY(reader.get("changed_namespaces"));
  if (static_cast<size_t>(std::bit_width(changed_namespaces_)) > namespaces_.size()) {
    return fail("{}: changed_namespaces {:#x}, there are {}", reader.path(), changed_namespaces_, namespaces_.size());
  }
  event_requests_ = TRY(get_list<std::deque<uint16_t>>(reader, "event_requests", kAsyncEventLimit));
  events_ = TRY(get_list<std::deque<uint32_t>>(reader, "events", 3));
  // What waits for an event counts as taken and not answered.
  submission_[0].in_flight = static_cast<uint32_t>(event_requests_.size());
  return {};
}

}  // namespace bulkhead::device::nvme

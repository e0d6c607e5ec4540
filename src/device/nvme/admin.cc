// The admin commands (NVM Express 1.4, chapter 5). Each is answered at once but for two: an asynchronous event request
// and the deletion of a queue with commands in flight.
#include <algorithm>
#include <array>

#include "device/nvme/controller.h"
#include "device/nvme/prp.h"

namespace bulkhead::device::nvme {

using namespace spec::nvme;

void Controller::execute_admin(const Entry& entry) {
  Status status = Status::kSuccess;
  uint32_t result = 0;
  if ((entry.flags & (kFusedMask | kTransferMask)) != 0) {
    post(0, entry.command_id, Status::kInvalidField, 0);
    return;
  }
  switch (static_cast<AdminOpcode>(entry.opcode)) {
    case AdminOpcode::kDeleteSubmissionQueue:
      if (!delete_submission_queue(entry, status)) return;
      break;
    case AdminOpcode::kCreateSubmissionQueue:
      status = create_submission_queue(entry);
      break;
    case AdminOpcode::kGetLogPage:
      status = get_log_page(entry);
      break;
    case AdminOpcode::kDeleteCompletionQueue:
      status = delete_completion_queue(entry);
      break;
    case AdminOpcode::kCreateCompletionQueue:
      status = create_completion_queue(entry);
      break;
    case AdminOpcode::kIdentify:
      status = identify(entry);
      break;
    case AdminOpcode::kAbort:
      status = abort(entry, result);
      break;
    case AdminOpcode::kSetFeatures:
      status = set_features(entry, result);
      break;
    case AdminOpcode::kGetFeatures:
      status = get_features(entry, result);
      break;
    case AdminOpcode::kAsyncEventRequest:
      await_event(entry);
      return;
    default:
      status = Status::kInvalidOpcode;
      break;
  }
  post(0, entry.command_id, status, result);
}

// To the driver's buffer, whole.
Controller::Status Controller::answer(const Entry& entry, ByteSpan data) {
  GuestBuffer buffer(memory_);
  const Status status = collect_pages(memory_, page_size_, entry.prp1, entry.prp2, data.size(), buffer);
  if (status == Status::kSuccess) buffer.write(0, data);
  return status;
}

// ---- Queues (5.3 to 5.6) ----

bool Controller::is_io_queue_base(uint64_t base, uint64_t size) const {
  return base % page_size_ == 0 && memory_.is_ram({base}, size);
}

Controller::Status Controller::create_completion_queue(const Entry& entry) {
  const auto id = static_cast<uint16_t>(entry.dword10);
  const uint32_t size = (entry.dword10 >> 16) + 1;
  const auto vector = static_cast<uint16_t>(entry.dword11 >> 16);
  if (id == 0 || id > (features_.queue_count >> 16) + 1 || id >= kQueueCount || completion_[id].exists()) {
    return Status::kInvalidQueueIdentifier;
  }
  if (size < 2 || size > kMaximumQueueSize) return Status::kInvalidQueueSize;
  if (vector >= kQueueCount) return Status::kInvalidInterruptVector;
  if ((entry.dword11 & kQueuePhysicallyContiguous) == 0) return Status::kInvalidField;
  if (!is_io_queue_base(entry.prp1, uint64_t{size} << kCompletionEntryShift)) return Status::kInvalidPrpOffset;
  completion_[id] = {
      .base = entry.prp1, .size = size, .interrupts = (entry.dword11 & kQueueInterruptsEnabled) != 0, .vector = vector};
  return Status::kSuccess;
}

Controller::Status Controller::create_submission_queue(const Entry& entry) {
  const auto id = static_cast<uint16_t>(entry.dword10);
  const uint32_t size = (entry.dword10 >> 16) + 1;
  const auto completion_id = static_cast<uint16_t>(entry.dword11 >> 16);
  if (id == 0 || id > (features_.queue_count & 0xFFFF) + 1 || id >= kQueueCount || submission_[id].exists()) {
    return Status::kInvalidQueueIdentifier;
  }
  if (completion_id == 0 || completion_id >= kQueueCount || !completion_[completion_id].exists()) {
    return Status::kCompletionQueueInvalid;
  }
  if (size < 2 || size > kMaximumQueueSize) return Status::kInvalidQueueSize;
  if ((entry.dword11 & kQueuePhysicallyContiguous) == 0) return Status::kInvalidField;
  if (!is_io_queue_base(entry.prp1, uint64_t{size} << kSubmissionEntryShift)) return Status::kInvalidPrpOffset;
  submission_[id] = {.base = entry.prp1, .size = size, .completion_id = completion_id};
  return Status::kSuccess;
}

Controller::Status Controller::delete_completion_queue(const Entry& entry) {
  const auto id = static_cast<uint16_t>(entry.dword10);
  if (id == 0 || id >= kQueueCount || !completion_[id].exists()) return Status::kInvalidQueueIdentifier;
  const bool in_use = std::ranges::any_of(
      submission_, [id](const SubmissionQueue& queue) { return queue.exists() && queue.completion_id == id; });
  if (in_use) return Status::kInvalidQueueDeletion;
  completion_[id] = {};
  return Status::kSuccess;
}

bool Controller::delete_submission_queue(const Entry& entry, Status& status) {
  const auto id = static_cast<uint16_t>(entry.dword10);
  if (id == 0 || id >= kQueueCount || !submission_[id].exists() || submission_[id].deleting) {
    status = Status::kInvalidQueueIdentifier;
    return true;
  }
  submission_[id].deleting = true;
  submission_[id].delete_command_id = entry.command_id;
  finish_deletion(id);
  return false;
}

// ---- Identify and logs (5.15, 5.14) ----

Controller::Status Controller::identify(const Entry& entry) {
  switch (static_cast<uint8_t>(entry.dword10)) {
    case kIdentifyController:
      return answer(entry, as_bytes(controller_data()));
    case kIdentifyNamespace: {
      // What all of them have in common is told where there is one: without namespace management it need not be.
      const bool common = entry.namespace_id == kAllNamespaces && namespaces_.size() == 1;
      const Namespace* const space = find_namespace(common ? 1 : entry.namespace_id);
      return space == nullptr ? Status::kInvalidNamespace : answer(entry, as_bytes(namespace_data(*space)));
    }
    case kIdentifyActiveNamespaces: {
      if (entry.namespace_id >= kAllNamespaces - 1) return Status::kInvalidNamespace;
      std::array<uint32_t, kIdentifySize / 4> list{};
      // Those behind the one that is named, in ascending order; there are fewer than fit.
      size_t at = 0;
      for (uint32_t id = entry.namespace_id + 1; id <= namespaces_.size(); ++id) list[at++] = id;
      return answer(entry, as_bytes(list));
    }
    case kIdentifyDescriptors: {
      const Namespace* const space = find_namespace(entry.namespace_id);
      return space == nullptr ? Status::kInvalidNamespace : answer(entry, namespace_descriptors(*space));
    }
    default:
      return Status::kInvalidField;
  }
}

Controller::Status Controller::get_log_page(const Entry& entry) {
  const auto id = static_cast<uint8_t>(entry.dword10);
  const uint64_t count = ((entry.dword10 >> 16) | uint64_t{entry.dword11 & 0xFFFF} << 16) + 1;
  const uint64_t offset = entry.dword12 | uint64_t{entry.dword13} << 32;
  // Every page is the controller's.
  if (entry.namespace_id != 0 && entry.namespace_id != kAllNamespaces &&
      find_namespace(entry.namespace_id) == nullptr) {
    return Status::kInvalidNamespace;
  }
  if (count * 4 > kMaximumTransfer || offset % 4 != 0) return Status::kInvalidField;
  std::vector<uint8_t> page = log_page(id);
  if (page.empty()) return Status::kInvalidLogPage;
  if (offset > page.size()) return Status::kInvalidField;
  page.erase(page.begin(), page.begin() + static_cast<ptrdiff_t>(offset));
  page.resize(count * 4);
  const Status status = answer(entry, page);
  if (status == Status::kSuccess && id == kLogErrors && (entry.dword10 & kLogRetainEvent) == 0) {
    error_events_masked_ = false;
    tell_events();
  }
  if (status == Status::kSuccess && id == kLogChangedNamespaces && (entry.dword10 & kLogRetainEvent) == 0) {
    notices_masked_ = false;
    changed_namespaces_ = 0;
    tell_events();
  }
  return status;
}

// ---- Features (5.21, 5.9) ----

// Where the value of a feature is that can be set and read as it was set; null for the others.
uint32_t* Controller::feature(uint8_t id, uint32_t dword11) {
  switch (id) {
    case kFeatureArbitration:
      return &features_.arbitration;
    case kFeatureTemperatureThreshold:
      // The composite temperature's only; over or under.
      if ((dword11 >> 16 & 0xF) != 0 || (dword11 >> 20 & 3) > 1) return nullptr;
      return (dword11 >> 20 & 1) != 0 ? &features_.temperature_under : &features_.temperature_over;
    case kFeatureErrorRecovery:
      return &features_.error_recovery;
    case kFeatureWriteCache:
      return &features_.write_cache;
    case kFeatureInterruptCoalescing:
      return &features_.coalescing;
    case kFeatureInterruptVector: {
      const uint32_t vector = dword11 & 0xFFFF;
      return vector < kQueueCount ? &features_.vectors[vector] : nullptr;
    }
    case kFeatureWriteAtomicity:
      return &features_.write_atomicity;
    case kFeatureAsyncEvents:
      return &features_.async_events;
    default:
      return nullptr;
  }
}

Controller::Status Controller::set_features(const Entry& entry, uint32_t& result) {
  const auto id = static_cast<uint8_t>(entry.dword10);
  if ((entry.dword10 & kFeatureSave) != 0) return Status::kFeatureNotSaveable;
  if (id == kFeatureQueueCount) {
    // 0xFFFF is not a count, and queues that exist keep theirs.
    if ((entry.dword11 & 0xFFFF) == 0xFFFF || entry.dword11 >> 16 == 0xFFFF) return Status::kInvalidField;
    const auto exists = [](const auto& queue) { return queue.exists(); };
    if (std::any_of(submission_.begin() + 1, submission_.end(), exists) ||
        std::any_of(completion_.begin() + 1, completion_.end(), exists)) {
      return Status::kCommandSequenceError;
    }
    const uint32_t most = kIoQueueCount - 1;
    features_.queue_count = std::min(entry.dword11 & 0xFFFF, most) | std::min(entry.dword11 >> 16, most) << 16;
    result = features_.queue_count;
    return Status::kSuccess;
  }
  // There is one power state.
  if (id == kFeaturePowerManagement) return (entry.dword11 & 0x1F) == 0 ? Status::kSuccess : Status::kInvalidField;
  uint32_t* value = feature(id, entry.dword11);
  if (value == nullptr) return Status::kInvalidField;
  *value = id == kFeatureWriteCache             ? entry.dword11 & 1
           : id == kFeatureTemperatureThreshold ? entry.dword11 & 0xFFFF
                                                : entry.dword11;
  return Status::kSuccess;
}

Controller::Status Controller::get_features(const Entry& entry, uint32_t& result) const {
  const auto id = static_cast<uint8_t>(entry.dword10);
  // Only the current value can be selected, as the controller says (ONCS bit 4).
  if ((entry.dword10 >> 8 & 7) != 0) return Status::kInvalidField;
  if (id == kFeatureQueueCount) {
    result = features_.queue_count;
    return Status::kSuccess;
  }
  if (id == kFeaturePowerManagement) return Status::kSuccess;
  const uint32_t* value = const_cast<Controller*>(this)->feature(id, entry.dword11);
  if (value == nullptr) return Status::kInvalidField;
  result = *value;
  return Status::kSuccess;
}

// ---- Abort and asynchronous events (5.1, 5.2) ----

// What the disk has goes to its end; an event request can be taken back.
Controller::Status Controller::abort(const Entry& entry, uint32_t& result) {
  const auto queue = static_cast<uint16_t>(entry.dword10);
  const auto command_id = static_cast<uint16_t>(entry.dword10 >> 16);
  result = 1;
  const auto found = std::ranges::find(event_requests_, command_id);
  if (queue != 0 || found == event_requests_.end()) return Status::kSuccess;
  event_requests_.erase(found);
  post(0, command_id, Status::kAbortRequested, 0);
  result = 0;
  return Status::kSuccess;
}

void Controller::await_event(const Entry& entry) {
  if (event_requests_.size() == kAsyncEventLimit) {
    post(0, entry.command_id, Status::kAsyncEventLimitExceeded, 0);
    return;
  }
  event_requests_.push_back(entry.command_id);
  tell_events();
}

}  // namespace bulkhead::device::nvme

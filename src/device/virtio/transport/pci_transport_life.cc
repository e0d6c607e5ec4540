// The life of the queues behind the registers: started, worked on, paused, reset. All of it happens on the worker;
// other threads come in through reset(), pause() and resume() and wait.
#include "device/virtio/transport/pci_transport.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

Result<> PciTransport::connect_worker() {
  for (size_t i = 0; i < queue_sizes_.size(); ++i) {
    notify_events_.push_back(std::make_unique<EventFd>(TRY(EventFd::create())));
    const auto index = static_cast<unsigned>(i);
    TRY(worker_->watch(*notify_events_.back(), [this, index] { process_queue(index); }));
  }
  wake_event_ = std::make_unique<EventFd>(TRY(EventFd::create()));
  TRY(worker_->watch(*wake_event_, [this] { on_wake(); }));
  model_->attach(*this);
  if (EventFd* const event = model_->own_event()) TRY(worker_->watch(*event, [this] { on_wake(); }));
  worker_->start();
  connected_ = true;
  return {};
}

PciTransport::~PciTransport() {
  if (connected_) {
    worker_->run_and_wait([this] { running_ = false; });
    worker_->wait_until([this] { return model_->in_flight() == 0; });
  }
  worker_.reset();
}

std::unique_ptr<Queue> PciTransport::make_queue(const QueueRegisters& registers, uint64_t features) const {
  return Queue::create(memory_, {.size = registers.size,
                                 .descriptors = {registers.descriptors},
                                 .driver = {registers.driver},
                                 .device = {registers.device},
                                 .packed = (features & kFeatureRingPacked) != 0,
                                 .indirect = (features & kFeatureIndirect) != 0,
                                 .event_index = (features & kFeatureEventIndex) != 0});
}

// Makes each queue that the driver enabled out of a copy of its registers; what is written to them later has no effect.
void PciTransport::start_queues() {
  Registers frozen;
  {
    const LockGuard lock(mutex_);
    if (resetting_ || (registers_.status & kStatusDriverOk) == 0 || (registers_.status & kStatusNeedsReset) != 0)
      return;
    frozen = registers_;
  }
  if (!started_) model_->start(frozen.driver_features);
  started_ = true;
  running_ = true;
  for (size_t i = 0; i < queues_.size(); ++i) {
    if (queues_[i] != nullptr || !frozen.queues[i].enabled) continue;
    queues_[i] = make_queue(frozen.queues[i], frozen.driver_features);
    if (queues_[i] == nullptr) {
      needs_reset("a queue's size, alignment or place in memory is not allowed");
      return;
    }
  }
  // A driver may have filled its rings before.
  kick_all();
}

void PciTransport::kick_all() {
  for (const auto& event : notify_events_) event->signal();
}

bool PciTransport::is_processed(unsigned index) const {
  return running_ && !paused_ && queues_[index] != nullptr && bus_master_enabled();
}

void PciTransport::process_queue(unsigned index) {
  // More than its share: others first.
  if (is_processed(index) && model_->process(index)) notify_events_[index]->signal();
}

void PciTransport::on_wake() {
  model_->on_wake();
  finish_reset_when_idle();
  for (unsigned i = 0; i < queues_.size(); ++i) process_queue(i);
}

// ---- Reset ----

void PciTransport::begin_reset() {
  running_ = false;
  draining_ = true;
  finish_reset_when_idle();
}

// Buffers of requests under way are the device's until they complete: until then the driver reads the old status.
void PciTransport::finish_reset_when_idle() {
  if (!draining_ || model_->in_flight() != 0) return;
  draining_ = false;
  for (auto& queue : queues_) queue.reset();
  if (started_) model_->stop();
  started_ = false;
  {
    const LockGuard lock(mutex_);
    registers_ = initial_registers();
    resetting_ = false;
    want_interrupt_pin_level(false);
  }
  settle_interrupt_pin();
}

void PciTransport::reset() {
  {
    const LockGuard lock(mutex_);
    resetting_ = true;
  }
  worker_->run_and_wait([this] { begin_reset(); });
  worker_->wait_until([this] { return !draining_; });
  reset_config();
}

void PciTransport::pause() {
  worker_->run_and_wait([this] { paused_ = true; });
  worker_->wait_until([this] { return model_->in_flight() == 0 && !draining_; });
}

void PciTransport::resume() {
  worker_->run_and_wait([this] {
    paused_ = false;
    model_->resume();
    kick_all();
  });
}

// ---- For the model ----

Queue* PciTransport::queue(unsigned index) {
  return index < queues_.size() ? queues_[index].get() : nullptr;
}

void PciTransport::used(unsigned index) {
  if (draining_ || queues_[index] == nullptr || !queues_[index]->take_interrupt()) return;
  uint16_t vector = kNoVector;
  {
    const LockGuard lock(mutex_);
    vector = registers_.queues[index].vector;
  }
  interrupt(kIsrQueue, vector);
}

void PciTransport::needs_reset(std::string_view reason) {
  if (fault_limit_.allow()) {
    log::warning("{}: needs reset: {} ({} such faults of the guest)", name_, reason, fault_limit_.count());
  }
  running_ = false;
  uint16_t vector = kNoVector;
  {
    const LockGuard lock(mutex_);
    registers_.status |= kStatusNeedsReset;
    vector = registers_.config_vector;
  }
  interrupt(kIsrConfig, vector);
}

// A driver that reads new bytes while the lock is held waits for it before it reads the generation.
void PciTransport::change_config(const std::function<void()>& change) {
  uint16_t vector = kNoVector;
  {
    const LockGuard lock(mutex_);
    ++config_generation_;
    change();
    if ((registers_.status & kStatusDriverOk) == 0) return;
    vector = registers_.config_vector;
  }
  interrupt(kIsrConfig, vector);
}

void PciTransport::interrupt(uint8_t isr_bit, uint16_t vector) {
  if (msix_enabled()) {
    if (vector != kNoVector) msix()->notify(vector);
    return;
  }
  {
    const LockGuard lock(mutex_);
    registers_.isr |= isr_bit;
    want_interrupt_pin_level(true);
  }
  settle_interrupt_pin();
}

}  // namespace bulkhead::device::virtio

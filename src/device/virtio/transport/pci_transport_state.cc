// Saved state of a virtio device on PCI: registers, rings, model, configuration space. It is taken with nothing in
// flight.
#include "device/virtio/transport/pci_transport.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

std::string queue_name(size_t index) {
  return fmt::format("queue{}", index);
}
std::string ring_name(size_t index) {
  return fmt::format("ring{}", index);
}

}  // namespace

void PciTransport::save_state(StateWriter& writer) const {
  worker_->wait_until([&] {
    if (model_->in_flight() != 0 || draining_) return false;
    save_on_worker(writer);
    return true;
  });
}

void PciTransport::save_on_worker(StateWriter& writer) const {
  save_config(writer);
  StateWriter model = writer.child("model", 1);
  model_->save_state(model);
  const LockGuard lock(mutex_);
  writer.put("device_feature_select", registers_.device_feature_select)
      .put("driver_feature_select", registers_.driver_feature_select)
      .put("driver_features", registers_.driver_features)
      .put("config_vector", registers_.config_vector)
      .put("status", registers_.status)
      .put("isr", registers_.isr)
      .put("queue_select", registers_.queue_select)
      .put("config_generation", config_generation_)
      .put("queue_count", registers_.queues.size());
  for (size_t i = 0; i < registers_.queues.size(); ++i) {
    const QueueRegisters& queue = registers_.queues[i];
    writer.child(queue_name(i), 1)
        .put("size", queue.size)
        .put("vector", queue.vector)
        .put("enabled", queue.enabled)
        .put("descriptors", queue.descriptors)
        .put("driver", queue.driver)
        .put("device", queue.device);
    if (running_ && queues_[i] != nullptr) {
      StateWriter ring = writer.child(ring_name(i), 1);
      queues_[i]->save_state(ring);
    }
  }
}

Result<PciTransport::Registers> PciTransport::read_registers(const StateReader& reader) const {
  Registers registers = initial_registers();
  const uint64_t last_vector = queue_sizes_.size();
  const auto check_vector = [&](uint64_t vector) -> Result<uint16_t> {
    if (vector > last_vector && vector != kNoVector)
      return fail("{}: vector {} of {}", reader.path(), vector, last_vector + 1);
    return static_cast<uint16_t>(vector);
  };
  if (const uint64_t count = TRY(reader.get("queue_count")); count != queue_sizes_.size()) {
    return fail("{}: {} queues, the device has {}", reader.path(), count, queue_sizes_.size());
  }
  registers.device_feature_select = static_cast<uint32_t>(TRY(reader.get("device_feature_select", UINT32_MAX)));
  registers.driver_feature_select = static_cast<uint32_t>(TRY(reader.get("driver_feature_select", UINT32_MAX)));
  registers.driver_features = TRY(reader.get("driver_features"));
  registers.config_vector = TRY(check_vector(TRY(reader.get("config_vector", UINT16_MAX))));
  registers.status = static_cast<uint8_t>(TRY(reader.get("status", UINT8_MAX)));
  registers.isr = static_cast<uint8_t>(TRY(reader.get("isr", kIsrQueue | kIsrConfig)));
  registers.queue_select = static_cast<uint16_t>(TRY(reader.get("queue_select", UINT16_MAX)));
  const bool features_ok = (registers.status & kStatusFeaturesOk) != 0;
  if (features_ok &&
      ((registers.driver_features & ~offered_features_) != 0 || (registers.driver_features & kFeatureVersion1) == 0)) {
    return fail("{}: features {:#x} were agreed on, {:#x} are offered", reader.path(), registers.driver_features,
                offered_features_);
  }
  if ((registers.status & kStatusDriverOk) != 0 && !features_ok)
    return fail("{}: running without features", reader.path());
  for (size_t i = 0; i < queue_sizes_.size(); ++i) {
    const StateReader child = TRY(reader.child(queue_name(i)));
    QueueRegisters& queue = registers.queues[i];
    queue.size = static_cast<uint16_t>(TRY(child.get("size", queue_sizes_[i])));
    if (queue.size == 0) return fail("{}: a queue of size 0", child.path());
    queue.vector = TRY(check_vector(TRY(child.get("vector", UINT16_MAX))));
    queue.enabled = TRY(child.get_flag("enabled"));
    queue.descriptors = TRY(child.get("descriptors"));
    queue.driver = TRY(child.get("driver"));
    queue.device = TRY(child.get("device"));
    if (queue.enabled && !features_ok) return fail("{}: enabled without features", child.path());
  }
  return registers;
}

Result<> PciTransport::restore_state(const StateReader& reader) {
  const Registers registers = TRY(read_registers(reader));
  const auto generation = static_cast<uint8_t>(TRY(reader.get("config_generation", UINT8_MAX)));
  Result<> result;
  worker_->wait_until([&] {
    if (model_->in_flight() != 0 || draining_) return false;
    running_ = false;
    for (auto& queue : queues_) queue.reset();
    if (started_) model_->stop();
    started_ = false;
    result = restore_on_worker(reader, registers);
    return true;
  });
  if (!result) return result;
  {
    const LockGuard lock(mutex_);
    registers_ = registers;
    config_generation_ = generation;
    resetting_ = false;
  }
  TRY(restore_config(reader));
  kick_all();
  // What has changed since the state was saved.
  wake();
  return {};
}

Result<> PciTransport::restore_on_worker(const StateReader& reader, const Registers& registers) {
  const bool runs = (registers.status & kStatusDriverOk) != 0 && (registers.status & kStatusNeedsReset) == 0;
  if (runs) {
    for (size_t i = 0; i < queues_.size(); ++i) {
      if (!registers.queues[i].enabled) continue;
      queues_[i] = make_queue(registers.queues[i], registers.driver_features);
      if (queues_[i] == nullptr) return fail("{}: queue {} does not lie in guest memory", reader.path(), i);
      TRY(queues_[i]->restore_state(TRY(reader.child(ring_name(i)))));
    }
    model_->start(registers.driver_features);
    started_ = true;
  }
  TRY(model_->restore_state(TRY(reader.child("model"))));
  running_ = runs;
  return {};
}

}  // namespace bulkhead::device::virtio

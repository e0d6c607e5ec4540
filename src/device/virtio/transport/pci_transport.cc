// The registers of the PCI transport: what a driver reads and writes. What follows from it for the queues is in
// pci_transport_life.cc.
#include "device/virtio/transport/pci_transport.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

#include "support/check.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

constexpr uint64_t kTransportFeatures = kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex;
// In the configuration access capability.
constexpr uint8_t kAccessBar = 4;
constexpr uint8_t kAccessOffset = 8;
constexpr uint8_t kAccessSize = 12;
constexpr uint8_t kAccessData = 16;
constexpr uint8_t kAccessDataSize = 4;

// What a driver may write in the common configuration; the 64-bit addresses are two halves each (4.1.3.1).
struct WritableRegister {
  uint8_t offset;
  uint8_t size;
};
constexpr std::array kWritableRegisters = {
    WritableRegister{offsetof(CommonConfig, device_feature_select), 4},
    WritableRegister{offsetof(CommonConfig, driver_feature_select), 4},
    WritableRegister{offsetof(CommonConfig, driver_feature), 4},
    WritableRegister{offsetof(CommonConfig, config_msix_vector), 2},
    WritableRegister{offsetof(CommonConfig, device_status), 1},
    WritableRegister{offsetof(CommonConfig, queue_select), 2},
    WritableRegister{offsetof(CommonConfig, queue_size), 2},
    WritableRegister{offsetof(CommonConfig, queue_msix_vector), 2},
    WritableRegister{offsetof(CommonConfig, queue_enable), 2},
    WritableRegister{offsetof(CommonConfig, queue_descriptors), 4},
    WritableRegister{offsetof(CommonConfig, queue_descriptors) + 4, 4},
    WritableRegister{offsetof(CommonConfig, queue_driver), 4},
    WritableRegister{offsetof(CommonConfig, queue_driver) + 4, 4},
    WritableRegister{offsetof(CommonConfig, queue_device), 4},
    WritableRegister{offsetof(CommonConfig, queue_device) + 4, 4},
};

// half 0 is the lower one.
void set_half(uint64_t& value, unsigned half, uint32_t to) {
  value = (value & (half == 0 ? 0xFFFF'FFFF'0000'0000 : 0xFFFF'FFFF)) | uint64_t{to} << (32 * half);
}

uint32_t half_of(uint64_t value, uint32_t select) {
  return select > 1 ? 0 : static_cast<uint32_t>(value >> (32 * select));
}

// The part of [offset, offset + size) inside [0, limit).
template <typename Span>
Span clipped(Span span, uint64_t offset, uint64_t limit) {
  return offset >= limit ? span.first(0) : span.first(std::min<uint64_t>(span.size(), limit - offset));
}

}  // namespace

Result<std::unique_ptr<PciTransport>> PciTransport::create(std::unique_ptr<Model> model, memory::GuestMemory& memory,
                                                           MessageSink& messages, std::unique_ptr<Worker> worker,
                                                           RingOffer rings) {
  auto transport =
      std::unique_ptr<PciTransport>(new PciTransport(std::move(model), memory, messages, std::move(worker), rings));
  TRY_IN(transport->name_, transport->connect_worker());
  return transport;
}

Result<std::unique_ptr<PciTransport>> PciTransport::create(std::unique_ptr<Model> model, memory::GuestMemory& memory,
                                                           MessageSink& messages) {
  auto worker = TRY(ThreadWorker::create(std::string(model->name())));
  return create(std::move(model), memory, messages, std::move(worker));
}

PciTransport::PciTransport(std::unique_ptr<Model> model, memory::GuestMemory& memory, MessageSink& messages,
                           std::unique_ptr<Worker> worker, RingOffer rings)
    : Function({.vendor_id = kPciVendor,
                .device_id = static_cast<uint16_t>(kPciDeviceBase + model->device_id()),
                .revision = 1,
                .class_code = model->pci_class(),
                .subsystem_vendor_id = kPciVendor,
                .subsystem_id = 0x1100,
                .interrupt_pin = 1}),
      name_(model->name()),
      memory_(memory),
      offered_features_(model->features() | kTransportFeatures |
                        (rings == RingOffer::kSplitAndPacked ? kFeatureRingPacked : 0)),
      queue_sizes_(model->queue_sizes()),
      queues_(queue_sizes_.size()),
      model_(std::move(model)),
      worker_(std::move(worker)) {
  CHECK(queue_sizes_.size() < kAreaSize / spec::pci::kMsixEntrySize, "every queue and the configuration have a vector");
  for (const uint16_t size : queue_sizes_) CHECK(std::has_single_bit(size), "a queue's largest size is a power of two");
  add_memory_bar(kBar, kBarSize, pci::BarKind::kMemory64, false, *this);
  add_virtio_capabilities();
  add_msix(messages, static_cast<unsigned>(queue_sizes_.size() + 1), kBar, kTableOffset, kPendingOffset);
  const LockGuard lock(mutex_);
  registers_ = initial_registers();
}

PciTransport::Registers PciTransport::initial_registers() const {
  Registers registers;
  for (const uint16_t size : queue_sizes_) registers.queues.push_back({.size = size});
  return registers;
}

void PciTransport::add_virtio_capabilities() {
  struct Wide {
    PciCapability capability;
    uint32_t last;
  };
  // From the third byte on, because Function writes the first two.
  const auto add = [this](uint8_t type, uint32_t offset, uint32_t size, size_t length, uint32_t last,
                          const Wide& writable) {
    const Wide body{.capability = {.length = static_cast<uint8_t>(length),
                                   .type = type,
                                   .bar = kBar,
                                   .offset = offset,
                                   .size = size},
                    .last = last};
    return add_capability(spec::pci::kCapabilityVendor, as_bytes(body).first(length).subspan(2),
                          as_bytes(writable).first(length).subspan(2));
  };
  const Wide fixed{};
  add(kPciCommonConfig, kCommonOffset, sizeof(CommonConfig), sizeof(PciCapability), 0, fixed);
  add(kPciIsrConfig, kIsrOffset, kAreaSize, sizeof(PciCapability), 0, fixed);
  add(kPciDeviceConfig, kDeviceOffset, kAreaSize, sizeof(PciCapability), 0, fixed);
  add(kPciNotifyConfig, kNotifyOffset, kAreaSize, sizeof(Wide), kNotifyStride, fixed);
  const Wide access{.capability = {.bar = 0xFF, .offset = UINT32_MAX, .size = UINT32_MAX}, .last = UINT32_MAX};
  config_access_capability_ = add(kPciConfigAccess, 0, 0, sizeof(Wide), 0, access);
}

std::vector<pci::Doorbell> PciTransport::doorbells() const {
  std::vector<pci::Doorbell> bells;
  for (size_t i = 0; i < notify_events_.size(); ++i) {
    bells.push_back(
        {.bar_index = kBar, .offset = kNotifyOffset + i * kNotifyStride, .event_fd = notify_events_[i]->fd()});
  }
  return bells;
}

// ---- The BAR ----

void PciTransport::read_mmio(uint64_t offset, MutableByteSpan out) {
  std::ranges::fill(out, uint8_t{0});
  const uint64_t place = offset % kAreaSize;
  switch (offset - place) {
    case kCommonOffset:
      read_common(place, out);
      break;
    case kIsrOffset:
      if (place == 0) read_isr(out);
      break;
    case kDeviceOffset:
      model_->read_config(place, clipped(out, place, kAreaSize));
      break;
    case kTableOffset:
      msix()->read_table(place, out);
      break;
    case kPendingOffset:
      msix()->read_pending(place, out);
      break;
    default:
      break;
  }
}

void PciTransport::write_mmio(uint64_t offset, ByteSpan in) {
  const uint64_t place = offset % kAreaSize;
  switch (offset - place) {
    case kCommonOffset:
      write_common(place, in);
      break;
    case kDeviceOffset:
      model_->write_config(place, clipped(in, place, kAreaSize));
      break;
    case kNotifyOffset:
      write_notify(place);
      break;
    case kTableOffset:
      msix()->write_table(place, in);
      break;
    default:
      break;
  }
}

void PciTransport::read_common(uint64_t offset, MutableByteSpan out) {
  CommonConfig config{};
  {
    const LockGuard lock(mutex_);
    const Registers& registers = registers_;
    config.device_feature_select = registers.device_feature_select;
    config.device_feature = half_of(offered_features_, registers.device_feature_select);
    config.driver_feature_select = registers.driver_feature_select;
    config.driver_feature = half_of(registers.driver_features, registers.driver_feature_select);
    config.config_msix_vector = registers.config_vector;
    config.queue_count = static_cast<uint16_t>(registers.queues.size());
    config.device_status = registers.status;
    config.config_generation = config_generation_;
    config.queue_select = registers.queue_select;
    if (registers.queue_select < registers.queues.size()) {
      const QueueRegisters& queue = registers.queues[registers.queue_select];
      config.queue_size = queue.size;
      config.queue_msix_vector = queue.vector;
      config.queue_enable = queue.enabled ? 1 : 0;
      config.queue_notify_offset = registers.queue_select;
      config.queue_descriptors = queue.descriptors;
      config.queue_driver = queue.driver;
      config.queue_device = queue.device;
    }
  }
  const MutableByteSpan within = clipped(out, offset, sizeof config);
  if (!within.empty()) std::memcpy(within.data(), as_bytes(config).data() + offset, within.size());
}

void PciTransport::write_common(uint64_t offset, ByteSpan in) {
  Consequence consequence = Consequence::kNone;
  {
    const LockGuard lock(mutex_);
    for (const WritableRegister& target : kWritableRegisters) {
      // A register is written whole or not at all.
      if (target.offset < offset || !range_fits(target.offset - offset, target.size, in.size())) continue;
      const Consequence wanted =
          write_register(target.offset, target.size, load_little(in.subspan(target.offset - offset, target.size)));
      consequence = std::max(consequence, wanted);
    }
  }
  if (consequence == Consequence::kStart) worker_->run_and_wait([this] { start_queues(); });
  if (consequence == Consequence::kReset) worker_->run_and_wait([this] { begin_reset(); });
}

PciTransport::Consequence PciTransport::write_register(unsigned offset, unsigned size, uint64_t value) {
  // Until the reset is done the driver has nothing to say (4.1.4.3.2).
  if (resetting_) return Consequence::kNone;
  switch (offset) {
    case offsetof(CommonConfig, device_feature_select):
      registers_.device_feature_select = static_cast<uint32_t>(value);
      break;
    case offsetof(CommonConfig, driver_feature_select):
      registers_.driver_feature_select = static_cast<uint32_t>(value);
      break;
    case offsetof(CommonConfig, driver_feature):
      write_driver_feature(static_cast<uint32_t>(value));
      break;
    case offsetof(CommonConfig, config_msix_vector):
      registers_.config_vector = value < msix()->vector_count() ? static_cast<uint16_t>(value) : kNoVector;
      break;
    case offsetof(CommonConfig, device_status):
      return write_status(static_cast<uint8_t>(value));
    case offsetof(CommonConfig, queue_select):
      registers_.queue_select = static_cast<uint16_t>(value);
      break;
    default: {
      const bool was_running = (registers_.status & kStatusDriverOk) != 0;
      write_queue_register(offset, size, value);
      if (offset == offsetof(CommonConfig, queue_enable) && was_running) return Consequence::kStart;
    }
  }
  return Consequence::kNone;
}

PciTransport::Consequence PciTransport::write_status(uint8_t value) {
  if (value == 0) {
    resetting_ = true;
    return Consequence::kReset;
  }
  constexpr uint8_t kByDriver =
      kStatusAcknowledge | kStatusDriver | kStatusDriverOk | kStatusFeaturesOk | kStatusFailed;
  const uint8_t before = registers_.status;
  // Only a reset takes bits away.
  uint8_t after = static_cast<uint8_t>(before | (value & kByDriver));
  if ((after & ~before & kStatusFeaturesOk) != 0) {
    const bool acceptable =
        (registers_.driver_features & ~offered_features_) == 0 && (registers_.driver_features & kFeatureVersion1) != 0;
    if (!acceptable) after &= static_cast<uint8_t>(~kStatusFeaturesOk);
  }
  if ((after & kStatusFeaturesOk) == 0) after &= static_cast<uint8_t>(~kStatusDriverOk);
  registers_.status = after;
  return (after & ~before & kStatusDriverOk) != 0 ? Consequence::kStart : Consequence::kNone;
}

void PciTransport::write_driver_feature(uint32_t value) {
  if ((registers_.status & kStatusFeaturesOk) != 0 || registers_.driver_feature_select > 1) return;
  set_half(registers_.driver_features, registers_.driver_feature_select, value);
}

void PciTransport::write_queue_register(unsigned offset, unsigned size, uint64_t value) {
  if (registers_.queue_select >= registers_.queues.size()) return;
  QueueRegisters& queue = registers_.queues[registers_.queue_select];
  if (offset == offsetof(CommonConfig, queue_msix_vector)) {
    queue.vector = value < msix()->vector_count() ? static_cast<uint16_t>(value) : kNoVector;
    return;
  }
  if (queue.enabled) return;
  const unsigned half = (offset & 4) != 0 ? 1 : 0;
  switch (offset) {
    case offsetof(CommonConfig, queue_size):
      if (value != 0 && value <= queue_sizes_[registers_.queue_select]) queue.size = static_cast<uint16_t>(value);
      break;
    case offsetof(CommonConfig, queue_enable):
      // Before FEATURES_OK it is not known how the ring is laid out.
      if (value == 1 && (registers_.status & kStatusFeaturesOk) != 0) queue.enabled = true;
      break;
    default: {
      CHECK(size == 4, "what is left are halves of addresses");
      uint64_t& address = offset < offsetof(CommonConfig, queue_driver)   ? queue.descriptors
                          : offset < offsetof(CommonConfig, queue_device) ? queue.driver
                                                                          : queue.device;
      set_half(address, half, static_cast<uint32_t>(value));
    }
  }
}

void PciTransport::read_isr(MutableByteSpan out) {
  {
    const LockGuard lock(mutex_);
    out[0] = registers_.isr;
    registers_.isr = 0;
    want_interrupt_pin_level(false);
  }
  settle_interrupt_pin();
}

void PciTransport::write_notify(uint64_t offset) {
  const auto index = static_cast<unsigned>(offset / kNotifyStride);
  if (offset % kNotifyStride != 0 || index >= notify_events_.size()) return;
  bool is_more = true;
  const auto work = [&] { is_more = is_processed(index) && model_->process_at_once(index); };
  if (!model_->has_work_at_once(index) || !worker_->try_run(work) || is_more) notify_events_[index]->signal();
}

// ---- The BAR through configuration space (4.1.4.9) ----

bool PciTransport::config_access_target(uint64_t& offset, unsigned& size) const {
  const auto base = config_access_capability_;
  offset = config_value(static_cast<uint16_t>(base + kAccessOffset), 4);
  size = config_value(static_cast<uint16_t>(base + kAccessSize), 4);
  if (config_value(static_cast<uint16_t>(base + kAccessBar), 1) != kBar) return false;
  return (size == 1 || size == 2 || size == 4) && offset % size == 0 && range_fits(offset, size, kBarSize);
}

void PciTransport::before_config_read(uint16_t offset, size_t size) {
  const auto data = static_cast<uint16_t>(config_access_capability_ + kAccessData);
  if (offset >= data + kAccessDataSize || offset + size <= data) return;
  uint64_t target = 0;
  unsigned target_size = 0;
  if (!config_access_target(target, target_size)) return;
  uint32_t value = 0;
  read_mmio(target, as_mutable_bytes(value).first(target_size));
  set_config_value(data, 4, value);
}

void PciTransport::after_config_write(uint16_t offset, size_t size) {
  // A driver that grants bus mastering late finds its queues worked on.
  if (offset < spec::pci::kStatus && offset + size > spec::pci::kCommand && bus_master_enabled()) wake();
  const auto data = static_cast<uint16_t>(config_access_capability_ + kAccessData);
  if (offset >= data + kAccessDataSize || offset + size <= data) return;
  uint64_t target = 0;
  unsigned target_size = 0;
  if (!config_access_target(target, target_size)) return;
  const uint32_t value = config_value(data, 4);
  write_mmio(target, as_bytes(value).first(target_size));
}

}  // namespace bulkhead::device::virtio

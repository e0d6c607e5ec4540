// The entropy device (VIRTIO 1.2, 5.4): fills the buffers that the driver gives it from a RandomSource.
#pragma once

#include <string>

#include "device/virtio/model.h"
#include "support/random.h"

namespace bulkhead::device::virtio {

class RngModel final : public Model {
 public:
  // A longer buffer is filled up to here, so that one chain does not hold the worker.
  static constexpr uint32_t kMaximumFill = 64 << 10;

  RngModel(std::string name, RandomSource& random) : name_(std::move(name)), random_(random) {}

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] uint16_t device_id() const override;
  [[nodiscard]] uint32_t pci_class() const override;
  [[nodiscard]] uint64_t features() const override { return 0; }
  [[nodiscard]] std::vector<uint16_t> queue_sizes() const override { return {64}; }
  void attach(Transport& transport) override { transport_ = &transport; }
  void read_config(uint64_t offset, MutableByteSpan out) const override;
  void start(uint64_t) override {}
  [[nodiscard]] bool process(unsigned queue) override;
  [[nodiscard]] size_t in_flight() const override { return 0; }
  void stop() override {}
  void save_state(StateWriter&) const override {}
  Result<> restore_state(const StateReader&) override { return {}; }

 private:
  const std::string name_;
  RandomSource& random_;
  Transport* transport_ = nullptr;
  Chain chain_;
};

}  // namespace bulkhead::device::virtio

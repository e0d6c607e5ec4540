// The console device (VIRTIO 1.2, 5.3) with one port: bytes between the driver's two queues and a ByteStream. Neither
// side waits for the other: what the stream does not take stays in the driver's ring, what the driver does not take
// stays in the stream.
#pragma once

#include <string>
#include <vector>

#include "console/byte_stream.h"
#include "device/virtio/model.h"
#include "spec/virtio.h"
#include "support/os/mutex.h"

namespace bulkhead::device::virtio {

class ConsoleModel final : public Model {
 public:
  // Input taken from the stream before the driver has room for it.
  static constexpr size_t kInputSize = 4096;
  // Output of one turn, after which other work of the device has its turn.
  static constexpr uint32_t kOutputATurn = 1 << 20;

  // The stream outlives the model.
  ConsoleModel(std::string name, console::ByteStream& stream);
  ~ConsoleModel() override;

  // The size of the terminal at the far end, in characters; from any thread.
  void set_size(uint16_t columns, uint16_t rows);

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] uint16_t device_id() const override { return spec::virtio::kDeviceConsole; }
  [[nodiscard]] uint32_t pci_class() const override;
  [[nodiscard]] uint64_t features() const override { return spec::virtio::kConsoleSize; }
  [[nodiscard]] std::vector<uint16_t> queue_sizes() const override { return {64, 64}; }
  void attach(Transport& transport) override;
  void read_config(uint64_t offset, MutableByteSpan out) const override;
  void start(uint64_t) override {}
  [[nodiscard]] bool process(unsigned queue) override;
  [[nodiscard]] size_t in_flight() const override { return 0; }
  void stop() override;
  void save_state(StateWriter& writer) const override;
  Result<> restore_state(const StateReader& reader) override;

 private:
  [[nodiscard]] bool process_input(Queue& queue);
  [[nodiscard]] bool process_output(Queue& queue);
  // Offers a chain's bytes from output_done_ on to the stream; true when it took all of them.
  [[nodiscard]] bool send(const Chain& chain, uint32_t& budget);
  void fill_input();

  const std::string name_;
  console::ByteStream& stream_;
  Transport* transport_ = nullptr;

  // Of the worker.
  Chain chain_;
  std::vector<uint8_t> input_;  // read from the stream, not yet given to the driver
  uint32_t output_done_ = 0;    // bytes already sent of the chain at the head of the output queue

  mutable Mutex mutex_;
  uint16_t columns_ GUARDED_BY(mutex_) = 80;
  uint16_t rows_ GUARDED_BY(mutex_) = 25;
};

}  // namespace bulkhead::device::virtio

#include "device/virtio/console/console.h"

#include <algorithm>
#include <array>

#include "spec/pci.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;

namespace {

constexpr unsigned kInputQueue = 0;
constexpr unsigned kOutputQueue = 1;

}  // namespace

ConsoleModel::ConsoleModel(std::string name, console::ByteStream& stream) : name_(std::move(name)), stream_(stream) {}

ConsoleModel::~ConsoleModel() {
  stream_.set_listener({});
}

uint32_t ConsoleModel::pci_class() const {
  return spec::pci::kClassCommunicationOther;
}

void ConsoleModel::attach(Transport& transport) {
  transport_ = &transport;
  stream_.set_listener([&transport] { transport.wake(); });
}

void ConsoleModel::set_size(uint16_t columns, uint16_t rows) {
  {
    const LockGuard lock(mutex_);
    if (columns == columns_ && rows == rows_) return;
    columns_ = columns;
    rows_ = rows;
  }
  if (transport_ != nullptr) transport_->config_changed();
}

void ConsoleModel::read_config(uint64_t offset, MutableByteSpan out) const {
  ConsoleConfig config{};
  {
    const LockGuard lock(mutex_);
    config.columns = columns_;
    config.rows = rows_;
  }
  config.max_ports = 1;
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = offset + i < sizeof config ? as_bytes(config)[offset + i] : uint8_t{0};
}

bool ConsoleModel::process(unsigned index) {
  Queue* queue = transport_->queue(index);
  if (queue == nullptr) return false;
  return index == kInputQueue ? process_input(*queue) : process_output(*queue);
}

void ConsoleModel::fill_input() {
  const size_t before = input_.size();
  input_.resize(kInputSize);
  const size_t count = stream_.read(MutableByteSpan(input_).subspan(before));
  input_.resize(before + count);
}

bool ConsoleModel::process_input(Queue& queue) {
  fill_input();
  if (input_.empty()) {
    // Room for input is no news while there is none to give.
    queue.disable_notifications();
    return false;
  }
  const Drained drained = drain(queue, chain_, [&](const Chain& chain) {
    const auto count = static_cast<uint32_t>(std::min<size_t>(input_.size(), chain.writable_size()));
    (void)chain.write(0, ByteSpan(input_).first(count));
    queue.push(chain, count);
    input_.erase(input_.begin(), input_.begin() + count);
    if (input_.empty()) fill_input();
    return !input_.empty();
  });
  transport_->used(kInputQueue);
  if (drained == Drained::kBroken) transport_->needs_reset("the console's input queue makes no sense");
  return drained == Drained::kMore && !input_.empty();
}

bool ConsoleModel::process_output(Queue& queue) {
  uint32_t budget = kOutputATurn;
  bool blocked = false;
  const Drained drained = drain(queue, chain_, [&](const Chain& chain) {
    blocked = !send(chain, budget);
    if (blocked) {
      queue.unpop(chain);
    } else {
      output_done_ = 0;
      queue.push(chain, 0);
    }
    return !blocked && budget != 0;
  });
  transport_->used(kOutputQueue);
  if (drained == Drained::kBroken) transport_->needs_reset("the console's output queue makes no sense");
  // A stream without room calls the listener when it has some.
  return drained == Drained::kMore && (!blocked || budget == 0);
}

bool ConsoleModel::send(const Chain& chain, uint32_t& budget) {
  std::array<uint8_t, 4096> bytes;
  while (output_done_ < chain.readable_size()) {
    const size_t left = std::min({bytes.size(), size_t{chain.readable_size() - output_done_}, size_t{budget}});
    if (left == 0) return false;
    const MutableByteSpan piece = MutableByteSpan(bytes).first(left);
    (void)chain.read(output_done_, piece);
    const size_t taken = stream_.write(piece);
    output_done_ += static_cast<uint32_t>(taken);
    budget -= static_cast<uint32_t>(taken);
    if (taken < left) return false;
  }
  return true;
}

void ConsoleModel::stop() {
  input_.clear();
  output_done_ = 0;
}

void ConsoleModel::save_state(StateWriter& writer) const {
  writer.put_bytes("input", input_).put("output_done", output_done_);
}

Result<> ConsoleModel::restore_state(const StateReader& reader) {
  const ByteSpan input = TRY(reader.get_bytes_up_to("input", kInputSize));
  output_done_ = static_cast<uint32_t>(TRY(reader.get("output_done", UINT32_MAX)));
  input_.assign(input.begin(), input.end());
  return {};
}

}  // namespace bulkhead::device::virtio

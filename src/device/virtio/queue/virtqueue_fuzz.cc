// A ring that a hostile guest wrote: whatever it holds, a queue gives out chains inside RAM or breaks, works a bounded
// time, and restores what it saved.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "device/virtio/queue/queue.h"
#include "support/check.h"

namespace bulkhead::device::virtio {
namespace {

constexpr uint64_t kArea = 0x1000;
constexpr uint64_t kAreaSize = 0x2000;

void look_at(const memory::GuestMemory& memory, const Chain& chain, const Queue& queue) {
  uint64_t size = 0;
  for (const MutableByteSpan& part : chain.writable_bytes(0, chain.writable_size())) {
    const auto address = static_cast<uint64_t>(part.data() - memory.host_base());
    CHECK(memory.is_ram({address}, part.size()), "a chain lies in RAM");
    size += part.size();
  }
  CHECK(size == chain.writable_size() && queue.size() != 0, "a chain is as long as it says");
  uint8_t byte = 0;
  CHECK(chain.read(0, {&byte, 1}) == (chain.readable_size() != 0), "a chain is read up to its end");
  CHECK(chain.write(0, {&byte, 1}) == (chain.writable_size() != 0), "a chain is written up to its end");
}

void save_and_restore(memory::GuestMemory& memory, std::unique_ptr<Queue>& queue) {
  StateWriter writer;
  queue->save_state(writer);
  auto restored = Queue::create(memory, queue->config());
  const auto reader = StateReader::parse(writer.encode(), "fuzz");
  CHECK(reader && restored->restore_state(*reader), "a queue restores what it saved");
  queue = std::move(restored);
}

}  // namespace
}  // namespace bulkhead::device::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  using namespace bulkhead::device::virtio;
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  if (size < 4) return 0;
  QueueConfig config{.size = static_cast<uint16_t>(1 + data[1] % 64), .descriptors = {kArea}};
  config.packed = (data[0] & 1) != 0;
  config.indirect = (data[0] & 2) != 0;
  config.event_index = (data[0] & 4) != 0;
  config.driver = {kArea + align_up(16 * uint64_t{config.size}, 16)};
  config.device = {config.driver.value + align_up(6 + 2 * uint64_t{config.size}, 16)};
  const unsigned rounds = data[2] % 8;
  ByteSpan rest(data + 3, size - 3);

  std::vector<uint8_t> area(kAreaSize);
  std::copy_n(rest.begin(), std::min<size_t>(rest.size(), area.size()), area.begin());
  CHECK(memory->write({kArea}, area), "the ring's area is RAM");
  auto queue = Queue::create(*memory, config);
  if (queue == nullptr) return 0;
  std::vector<Chain> in_flight;
  for (unsigned round = 0; round <= rounds; ++round) {
    Chain chain;
    const Drained drained = drain(*queue, chain, [&](const Chain& taken) {
      look_at(*memory, taken, *queue);
      in_flight.push_back(taken);
      CHECK(in_flight.size() <= queue->size(), "no more chains are out than the ring holds");
      return true;
    });
    // The last one first, as a disk might, and one of them left over to the next round.
    while (in_flight.size() > round % 2) {
      queue->push(in_flight.back(), round);
      in_flight.pop_back();
    }
    (void)queue->take_interrupt();
    if (in_flight.empty()) save_and_restore(*memory, queue);
    if (drained == Drained::kBroken) break;
    // The guest writes on meanwhile.
    if (rest.size() >= 16) {
      rest = rest.subspan(8);
      const uint64_t place = kArea + (load<uint16_t>(rest.data()) % (kAreaSize - 8));
      CHECK(memory->write({place}, rest.first(8)), "the ring's area is RAM");
    }
  }
  return 0;
}

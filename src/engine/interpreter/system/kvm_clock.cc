#include "engine/interpreter/system/kvm_clock.h"

#include "engine/engine.h"

namespace bulkhead::engine {
namespace {

struct SystemTime {
  uint32_t version, padding0;
  uint64_t tsc_timestamp, system_time;
  uint32_t tsc_to_system_mul;
  int8_t tsc_shift;
  uint8_t flags;
  uint8_t padding[2];
};
static_assert(sizeof(SystemTime) == 32);

struct WallClock {
  uint32_t version, seconds, nanoseconds;
};

constexpr uint8_t kStable = 1;

}  // namespace

void publish_system_time(Cpu& cpu) {
  const uint64_t msr = cpu.cold.msr_kvm_system_time;
  if ((msr & 1) == 0) return;
  // ns = ((ticks << shift) x mul) >> 32: scale the frequency into (10^9, 2 x 10^9] so that mul has its top bit.
  uint64_t hz = cpu.engine->clock().tsc_hz();
  int8_t shift = 0;
  while (hz > 2'000'000'000) {
    hz >>= 1;
    --shift;
  }
  while (hz <= 1'000'000'000) {
    hz <<= 1;
    ++shift;
  }
  SystemTime time{};
  time.version = 2;
  // All vCPUs count from the machine's power-on, so that they agree to the last bit.
  time.tsc_timestamp = cpu.cold.tsc_offset;
  time.system_time = 0;
  time.tsc_to_system_mul = static_cast<uint32_t>((uint64_t{1'000'000'000} << 32) / hz);
  time.tsc_shift = shift;
  time.flags = kStable;
  (void)cpu.memory->write_object({msr & ~1ull}, time);
}

void publish_wall_clock(Cpu& cpu, uint64_t address) {
  Clock& clock = cpu.engine->clock();
  const uint64_t at_power_on = clock.wall_ns() - clock.now_ns();
  const WallClock wall{2, static_cast<uint32_t>(at_power_on / Clock::kNanosecondsPerSecond),
                       static_cast<uint32_t>(at_power_on % Clock::kNanosecondsPerSecond)};
  (void)cpu.memory->write_object({address}, wall);
}

}  // namespace bulkhead::engine

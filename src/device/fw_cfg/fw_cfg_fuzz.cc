// Any sequence of port accesses, with guest memory that the input also writes.
#include "device/fw_cfg/fw_cfg.h"
#include "support/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  static const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  device::FwCfg device(*memory);
  device.add_file("etc/e820", std::vector<uint8_t>(40, 7));
  constexpr size_t kStep = 6;
  for (; size >= kStep; data += kStep, size -= kStep) {
    const unsigned width = 1u << (data[0] & 3) % 3;
    const auto offset = static_cast<uint16_t>(data[1] % (device::FwCfg::kPortCount - width + 1));
    const auto value = load<uint32_t>(data + 2);
    switch (data[0] >> 2 & 3) {
      case 0:
        (void)device.read_port(offset, width);
        break;
      case 1:
        (void)memory->write_object({data[1] * 4u}, value);
        break;
      default:
        device.write_port(offset, width, value);
    }
  }
  StateWriter writer;
  device.save_state(writer);
  const auto reader = StateReader::parse(writer.encode(), "fw-cfg");
  CHECK(reader && device.restore_state(*reader), "a device takes back its own state");
  return 0;
}

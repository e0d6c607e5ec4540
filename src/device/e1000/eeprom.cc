#include "device/e1000/eeprom.h"

#include <numeric>

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

namespace {

constexpr uint32_t kDriven = kEepromClock | kEepromSelect | kEepromIn;
// A start bit, two bits of operation, six of address.
constexpr uint32_t kStartBit = 1u << 8;
constexpr uint32_t kOperationShift = 6, kOperationRead = 2, kAddressMask = 0x3F;
// Bits 15 and 14 say that there is an EEPROM, the lowest two that identities are to be taken from it.
constexpr uint16_t kControl1 = 0x4003;

}  // namespace

Eeprom::Eeprom(const net::frame::MacAddress& mac, const EepromIdentity& identity) {
  for (size_t i = 0; i < net::frame::MacAddress::kSize / 2; ++i) words_[i] = load<uint16_t>(&mac.bytes[2 * i]);
  words_[kEepromControl1] = kControl1;
  words_[kEepromSubsystem] = identity.subsystem_id;
  words_[kEepromSubsystemVendor] = identity.subsystem_vendor_id;
  words_[kEepromDevice] = identity.device_id;
  words_[kEepromVendor] = identity.vendor_id;
  const auto sum = std::accumulate(words_.begin(), words_.end(), 0u);
  words_[kEepromChecksum] = static_cast<uint16_t>(kEepromSum - sum);
}

void Eeprom::drive(uint32_t levels) {
  const uint32_t before = wires_.levels;
  wires_.levels = levels & kDriven;
  if ((levels & kEepromSelect) == 0 || (before & kEepromSelect) == 0) {
    // Ready for a start bit.
    wires_ = {.levels = wires_.levels};
    return;
  }
  if ((levels & ~before & kEepromClock) != 0) clock((levels & kEepromIn) != 0);
}

void Eeprom::clock(bool data_in) {
  if (wires_.reading == 0) {
    if (wires_.shifted >= kStartBit) return;  // an operation that changes nothing here
    wires_.shifted = wires_.shifted << 1 | (data_in ? 1 : 0);
    if (wires_.shifted < kStartBit || (wires_.shifted >> kOperationShift & 3) != kOperationRead) return;
    wires_.reading = 1;
    wires_.address = wires_.shifted & kAddressMask;
    wires_.out_left = 0;
    wires_.out = 0;
    return;
  }
  if (wires_.out_left == 0) {
    // The next word follows by itself.
    wires_.out_word = words_[wires_.address];
    wires_.address = (wires_.address + 1) & kAddressMask;
    wires_.out_left = 16;
  }
  wires_.out = wires_.out_word >> --wires_.out_left & 1;
}

bool Eeprom::set_wires(const Wires& wires) {
  const bool valid = (wires.levels & ~kDriven) == 0 && wires.shifted < 2 * kStartBit && wires.out_left <= 16 &&
                     wires.address <= kAddressMask && wires.reading <= 1 && wires.out <= 1;
  if (valid) wires_ = wires;
  return valid;
}

}  // namespace bulkhead::device::e1000

#include "device/e1000/phy.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

namespace {

struct Register {
  unsigned number;
  uint16_t at_reset;
  uint16_t writable;
};

// The others read as zero.
constexpr Register kRegisters[] = {
    {kPhyControl, 0x1140, 0x7DC0},  // agreement with the partner on, full duplex, 1000 Mb/s
    {kPhyStatus, 0x7949, 0},        // every speed over copper, able to agree, more in register 15
    {kPhyId1, 0x0141, 0},
    {kPhyId2, 0, 0},  // by model
    {kPhyAdvertised, 0x0DE1, 0xFFFF},
    {kPhyPartner, 0, 0},
    {kPhyExpansion, 0x0004, 0},
    {kPhy1000Control, 0x0E00, 0xFF00},
    {kPhy1000Status, 0, 0},
    {kPhyExtendedStatus, 0x3000, 0},
    {kPhySpecificControl, 0x0068, 0xFFFF},
    {kPhySpecificStatus, 0, 0},
    {kPhyInterruptEnable, 0, 0xFFFF},
    {kPhyInterruptStatus, 0, 0},
    {kPhyExtendedControl, 0x0D60, 0xFFFF},
    {kPhyPage, 0, 0xFFFF},
};

// What they say besides while there is a cable.
constexpr uint16_t kLinkUp = 0x0004, kAgreed = 0x0020;  // register 1
constexpr uint16_t kPartner = 0xCDE1;                   // register 5: every speed, acknowledged
constexpr uint16_t kPartnerAble = 0x0001;               // register 6
constexpr uint16_t kPartner1000 = 0x3C00;               // register 10: both receivers well
constexpr uint16_t kSpecificUp =
    0x8000 | 0x2000 | 0x0800 | 0x0400;  // register 17: 1000 Mb/s, full duplex, resolved, link

}  // namespace

void Phy::reset() {
  registers_ = {};
  for (const Register& each : kRegisters) registers_[each.number] = each.at_reset;
  registers_[kPhyId2] = identity_;
}

uint16_t Phy::read(unsigned number, bool link_up) const {
  if (number >= kPhyPagedFirst && number != kPhyPage && registers_[kPhyPage] != 0) return 0;
  const uint16_t value = registers_[number];
  if (!link_up) return value;
  switch (number) {
    case kPhyStatus:
      return value | kLinkUp | kAgreed;
    case kPhyPartner:
      return kPartner;
    case kPhyExpansion:
      return value | kPartnerAble;
    case kPhy1000Status:
      return kPartner1000;
    case kPhySpecificStatus:
      return kSpecificUp;
    default:
      return value;
  }
}

bool Phy::write(unsigned number, uint16_t value) {
  if (number == kPhyControl && (value & kPhyReset) != 0) {
    reset();
    return true;
  }
  if (number >= kPhyPagedFirst && number != kPhyPage && registers_[kPhyPage] != 0) return false;
  for (const Register& each : kRegisters) {
    if (each.number == number) {
      registers_[number] = static_cast<uint16_t>((registers_[number] & ~each.writable) | (value & each.writable));
    }
  }
  return number == kPhyControl && (value & kPhyRestart) != 0;
}

void Phy::restore(const Registers& saved) {
  reset();
  for (const Register& each : kRegisters) {
    registers_[each.number] =
        static_cast<uint16_t>((registers_[each.number] & ~each.writable) | (saved[each.number] & each.writable));
  }
}

}  // namespace bulkhead::device::e1000

// What a driver reads and writes (software developer's manual, 13). What follows from it happens on the worker.
#include <algorithm>

#include "device/e1000/card.h"
#include "spec/pci.h"

namespace bulkhead::device::e1000 {

using namespace spec::e1000;

struct Card::Plain {
  uint32_t offset;
  uint32_t Registers::* field;
  uint32_t writable;
  bool of_82574 = false;  // alone
};

// Sorted by offset.
const Card::Plain* Card::find_plain(uint64_t offset) const {
  static constexpr Plain kPlain[] = {
      {kFlowAddressLow, &Registers::flow_address_low, UINT32_MAX},
      {kFlowAddressHigh, &Registers::flow_address_high, 0xFFFF},
      {kFlowType, &Registers::flow_type, 0xFFFF},
      {kVlanType, &Registers::vlan_type, 0xFFFF},
      {kAutoClear, &Registers::auto_clear, 0x01F0'0000, true},
      {kAutoMask, &Registers::auto_mask, UINT32_MAX, true},
      {kVectors, &Registers::vectors, 0x800F'FFFF, true},
      {kFlowTimer, &Registers::flow_timer, 0xFFFF},
      {kTransmitConfiguration, &Registers::transmit_configuration, UINT32_MAX},
      {kTransmitGap, &Registers::transmit_gap, 0x3FFF'FFFF},
      {kAdaptiveSpacing, &Registers::adaptive_spacing, 0xFFFF},
      {kLedControl, &Registers::led, UINT32_MAX},
      {kConfigurationOwner, &Registers::configuration_owner, UINT32_MAX, true},
      {kPacketBuffer, &Registers::packet_buffer, 0xFFFF},
      {kFlowThresholdLow, &Registers::flow_threshold_low, 0x8000'FFF8},
      {kFlowThresholdHigh, &Registers::flow_threshold_high, 0xFFF8},
      {kSplitControl, &Registers::split_control, 0x3F3F'3F7F, true},
      {kReceiveDelay, &Registers::receive_delay, 0xFFFF},
      {kReceiveThresholds, &Registers::receive_thresholds, UINT32_MAX},
      {kReceiveAbsoluteDelay, &Registers::receive_absolute_delay, 0xFFFF},
      {kReceiveSmallPackets, &Registers::receive_small_packets, 0xFFF},
      {kTransmitDelay, &Registers::transmit_delay, 0xFFFF},
      {kTransmitThresholds, &Registers::transmit_thresholds, UINT32_MAX},
      {kTransmitAbsoluteDelay, &Registers::transmit_absolute_delay, 0xFFFF},
      {kSegmentationPad, &Registers::segmentation_pad, UINT32_MAX},
      {kTransmitArbitration, &Registers::transmit_arbitration, UINT32_MAX, true},
      {kReceiveChecksum, &Registers::receive_checksum, 0x37FF},
      {kReceiveFilter, &Registers::receive_filter, UINT32_MAX, true},
      {kWakeControl, &Registers::wake_control, 0xF},
      {kWakeFilter, &Registers::wake_filter, 0x000F'80FF},
      {kWakeStatus, &Registers::wake_status, 0},
      {kScalingControl, &Registers::scaling_control, UINT32_MAX, true},
      {kManagement, &Registers::management, UINT32_MAX},
      {kPcieControl, &Registers::pcie_control, UINT32_MAX, true},
      {kSemaphore, &Registers::semaphore, 0xF, true},
  };
  const auto* const found = std::ranges::lower_bound(kPlain, offset, {}, [](const Plain& each) { return each.offset; });
  const bool is_there = found != std::end(kPlain) && found->offset == offset && (is_82574() || !found->of_82574);
  return is_there ? found : nullptr;
}

Card::Registers Card::registers_at_reset() const {
  Registers made{};
  made.control = kControlFullDuplex | kControlSpeed1000;
  made.vlan_type = net::frame::kTypeVlan;
  made.packet_buffer = 0x0010'0030;  // 48 KiB for what comes, 16 for what goes
  made.addresses[0] = load<uint32_t>(settings_.mac.bytes.data());
  made.addresses[1] = kAddressValid | load<uint16_t>(&settings_.mac.bytes[4]);
  return made;
}

uint32_t Card::device_status() const {
  return kStatusFullDuplex | kStatusSpeed1000 | kStatusDetected1000 | (link_up_ ? kStatusLinkUp : 0) |
         (is_82574() && (registers_.control & kControlNoMaster) == 0 ? kStatusMaster : 0);
}

// ---- Access ----

void Card::read_mmio(uint64_t offset, MutableByteSpan out) {
  uint32_t value = 0;
  uint64_t read = UINT64_MAX;
  // Each register once, for some change by being read.
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t at = offset + i;
    if (const uint64_t word = align_down(at, 4); word != read) {
      value = read_register(word);
      read = word;
    }
    out[i] = static_cast<uint8_t>(value >> (at % 4 * 8));
  }
}

// A register is written by whole doublewords or not at all.
void Card::write_mmio(uint64_t offset, ByteSpan in) {
  if (offset % 4 != 0) return;
  for (size_t i = 0; i + 4 <= in.size(); i += 4) write_register(offset + i, load<uint32_t>(&in[i]));
}

// An address, and behind it the register there (13.2.2).
uint32_t Card::read_port(uint16_t offset, unsigned size) {
  uint32_t address = 0;
  {
    const LockGuard lock(mutex_);
    address = registers_.port_address;
  }
  uint32_t value = UINT32_MAX;
  if (offset < 4) value = address >> offset * 8;
  if (offset == 4 && size == 4) value = read_register(address);
  return size == 4 ? value : value & ((1u << size * 8) - 1);
}

void Card::write_port(uint16_t offset, unsigned size, uint32_t value) {
  if (size != 4) return;
  uint32_t address = 0;
  {
    const LockGuard lock(mutex_);
    if (offset == 0) registers_.port_address = value & (kBarSize - 4);
    address = registers_.port_address;
  }
  if (offset == 4) write_register(address, value);
}

uint32_t* Card::array_word(uint64_t offset) {
  const auto in = [offset](uint32_t first, auto& words) -> uint32_t* {
    return offset >= first && offset - first < 4 * words.size() ? &words[(offset - first) / 4] : nullptr;
  };
  if (uint32_t* const word = in(kReceiveAddresses, registers_.addresses)) return word;
  if (uint32_t* const word = is_82574() ? in(kVectorThrottles, registers_.vector_throttles) : nullptr) return word;
  if (uint32_t* const word = in(kMulticastTable, registers_.multicast)) return word;
  return in(kVlanTable, registers_.vlans);
}

uint32_t Card::read_register(uint64_t offset) {
  uint32_t value = 0;
  {
    const LockGuard lock(mutex_);
    switch (offset) {
      case kControl:
      case kControl + 4:  // the same once more (13.4.1)
        return registers_.control;
      case kDeviceStatus:
        return device_status();
      case kEepromControl:
        return eeprom_.wires().levels | eeprom_.data_out() | kEepromPresent | registers_.eeprom_request |
               (registers_.eeprom_request != 0 ? kEepromGrant : 0) | (is_82574() ? kEepromLoaded : 0);
      case kEepromRead:
        return registers_.eeprom_read;
      case kControlExtended:
        return registers_.control_extended;
      case kMdiControl:
        return registers_.mdi;
      case kInterruptThrottle:
        return registers_.throttle;
      case kInterruptMaskSet:
        return registers_.mask;
      case kReceiveControl:
        return registers_.receive_control;
      case kTransmitControl:
        return registers_.transmit_control;
      case kReceiveBaseLow:
        return registers_.receive.base_low;
      case kReceiveBaseHigh:
        return registers_.receive.base_high;
      case kReceiveLength:
        return registers_.receive.length;
      case kReceiveHead:
        return registers_.receive.head;
      case kReceiveTail:
        return registers_.receive.tail;
      case kTransmitBaseLow:
        return registers_.transmit.base_low;
      case kTransmitBaseHigh:
        return registers_.transmit.base_high;
      case kTransmitLength:
        return registers_.transmit.length;
      case kTransmitHead:
        return registers_.transmit.head;
      case kTransmitTail:
        return registers_.transmit.tail;
      case kInterruptCause:
        value = take_causes();
        break;
      default:
        if (offset >= kStatistics && offset < kStatistics + 4 * kStatisticCount) {
          return std::exchange(registers_.statistics[(offset - kStatistics) / 4], 0);
        }
        if (const uint32_t* const word = array_word(offset)) return *word;
        if (const Plain* const plain = find_plain(offset)) return registers_.*plain->field;
        return 0;
    }
  }
  settle_interrupts();
  return value;
}

void Card::write_register(uint64_t offset, uint32_t value) {
  After after;
  {
    const LockGuard lock(mutex_);
    after = write_locked(offset, value);
  }
  settle_interrupts();
  if (after.reset) {
    worker_->run_and_wait([this] { reset_on_worker(); });
  } else if (after.wait) {
    // The driver frees a ring and its buffers once it has been told to rest.
    worker_->run_and_wait([] {});
  }
  if (after.kick) kick_event_->signal();
}

bool Card::write_array(uint64_t offset, uint32_t value) {
  uint32_t* const word = array_word(offset);
  if (word == nullptr) return false;
  if (offset < kMulticastTable) {  // a throttle
    *word = value & 0xFFFF;
    update_interrupts();
    return true;
  }
  const bool is_high =
      offset >= kReceiveAddresses && offset < kReceiveAddresses + 4 * kReceiveAddressWords && offset % 8 == 4;
  *word = is_high ? value & 0x8003'FFFF : value;
  return true;
}

Card::After Card::write_locked(uint64_t offset, uint32_t value) {
  switch (offset) {
    case kControl:
    case kControl + 4:
      if ((value & kControlReset) != 0) return {.reset = true};
      if ((value & kControlPhyReset) != 0) {
        phy_.reset();
        raise(link_up_ ? kCauseLink : 0);
      }
      registers_.control = value & ~kControlPhyReset;
      return {};
    case kEepromControl:
      registers_.eeprom_request = value & kEepromRequest;
      eeprom_.drive(value);
      return {};
    case kEepromRead: {
      if ((value & kEepromReadStart) == 0) return {};
      const unsigned shift = is_82574() ? kEepromReadAddressShift74 : kEepromReadAddressShift;
      const uint32_t address = (value & 0xFFFF) >> shift;
      registers_.eeprom_read =
          uint32_t{eeprom_.word(address)} << 16 | address << shift | (is_82574() ? kEepromReadDone74 : kEepromReadDone);
      return {};
    }
    case kControlExtended:
      registers_.control_extended = value & ~(kControlExtendedEepromReset | kControlExtendedClear);
      return {};
    case kMdiControl:
      write_mdi(value);
      return {};
    case kInterruptCause:
      registers_.causes &= ~value;
      update_interrupts();
      return {};
    case kInterruptThrottle:
      registers_.throttle = value & 0xFFFF;
      update_interrupts();
      return {};
    case kInterruptCauseSet:
      raise(value);
      return {};
    case kInterruptMaskSet:
      registers_.mask |= value & (is_82574() ? kCausesWithQueues : kCauses);
      update_interrupts();
      return {};
    case kInterruptMaskClear:
      registers_.mask &= ~value;
      update_interrupts();
      return {};
    case kReceiveControl: {
      const bool stops = (registers_.receive_control & ~value & kReceiveEnable) != 0;
      registers_.receive_control = value & 0x07FF'FFFE;
      return {.kick = true, .wait = stops};
    }
    case kTransmitControl: {
      const bool stops = (registers_.transmit_control & ~value & kTransmitEnable) != 0;
      registers_.transmit_control = value;
      return {.kick = true, .wait = stops};
    }
    case kReceiveTail:
      registers_.receive.tail = value & 0xFFFF;
      return {.kick = true};
    case kTransmitTail:
      registers_.transmit.tail = value & 0xFFFF;
      return {.kick = true};
    default:
      break;
  }
  // What sets a ring up anew.
  for (auto [first, ring, generation] : {std::tuple(kReceiveBaseLow, &registers_.receive, &receive_generation_),
                                         std::tuple(kTransmitBaseLow, &registers_.transmit, &transmit_generation_)}) {
    uint32_t* word = nullptr;
    uint32_t writable = UINT32_MAX;
    switch (offset - first) {
      case 0:
        word = &ring->base_low;
        writable = ~0xFu;
        break;
      case kReceiveBaseHigh - kReceiveBaseLow:
        word = &ring->base_high;
        break;
      case kReceiveLength - kReceiveBaseLow:
        word = &ring->length;
        writable = kLengthMask;
        break;
      case kReceiveHead - kReceiveBaseLow:
        word = &ring->head;
        writable = 0xFFFF;
        break;
      default:
        continue;
    }
    *word = value & writable;
    ++*generation;
    return {};
  }
  if (write_array(offset, value)) return {};
  if (const Plain* const plain = find_plain(offset)) {
    registers_.*plain->field = (registers_.*plain->field & ~plain->writable) | (value & plain->writable);
  }
  return {};
}

void Card::write_mdi(uint32_t value) {
  const unsigned number = value >> kMdiRegisterShift & 0x1F;
  const uint32_t operation = value >> kMdiOperationShift & 3;
  registers_.mdi = (value & ~(kMdiError | 0x8000'0000)) | kMdiReady;
  if ((value >> kMdiPhyShift & 0x1F) != kMdiPhyAddress || (operation != kMdiRead && operation != kMdiWrite)) {
    registers_.mdi |= kMdiError;
  } else if (operation == kMdiRead) {
    registers_.mdi = (registers_.mdi & ~0xFFFFu) | phy_.read(number, link_up_);
  } else if (phy_.write(number, static_cast<uint16_t>(value)) && link_up_) {
    raise(kCauseLink);
  }
  if ((value & kMdiInterrupt) != 0) raise(kCauseMdi);
}

void Card::MsixWindow::read_mmio(uint64_t offset, MutableByteSpan out) {
  std::ranges::fill(out, uint8_t{0});
  if (offset < kMsixPending) {
    card_.msix()->read_table(offset, out);
  } else {
    card_.msix()->read_pending(offset - kMsixPending, out);
  }
}

void Card::MsixWindow::write_mmio(uint64_t offset, ByteSpan in) {
  if (offset < kMsixPending) card_.msix()->write_table(offset, in);
}

// A driver that grants bus mastering late finds its rings worked on.
void Card::after_config_write(uint16_t offset, size_t size) {
  if (offset < spec::pci::kStatus && offset + size > spec::pci::kCommand && bus_master_enabled()) kick_event_->signal();
}

}  // namespace bulkhead::device::e1000

#include "device/interrupt/io_apic.h"

#include <algorithm>

#include <fmt/format.h>

namespace bulkhead::device::interrupt {
namespace {

enum Offset : uint64_t { kSelect = 0x00, kWindow = 0x10, kEndOfInterrupt = 0x40 };
enum Register : uint8_t { kId = 0x00, kVersion = 0x01, kArbitration = 0x02, kFirstEntry = 0x10 };

constexpr uint32_t kVersionValue = (IoApic::kInputCount - 1) << 16 | 0x20;

constexpr uint64_t kRemoteIrr = 1u << 14;
constexpr uint64_t kLevel = 1u << 15;
constexpr uint64_t kMasked = 1u << 16;
// Vector, delivery mode, destination mode, polarity, trigger mode, mask, destination.
constexpr uint64_t kWritable = 0xFF0000000001AFFF;

[[nodiscard]] InterruptMessage message_of(uint64_t entry) {
  return make_message(static_cast<uint8_t>(entry >> 56), static_cast<DestinationMode>(entry >> 11 & 1),
                      {.vector = static_cast<uint8_t>(entry),
                       .mode = static_cast<DeliveryMode>(entry >> 8 & 7),
                       .trigger = static_cast<TriggerMode>(entry >> 15 & 1)});
}

}  // namespace

IoApic::IoApic(MessageSink& sink, uint8_t id) : sink_(sink), reset_id_(id & 0xF), id_(reset_id_) {
  entries_.fill(kMasked);
}

void IoApic::reset() {
  {
    LockGuard lock(mutex_);
    select_ = 0;
    id_ = reset_id_;
    entries_.fill(kMasked);
  }
  announce_all_routes();
}

IoApic::Route IoApic::route(uint32_t input) const {
  LockGuard lock(mutex_);
  const uint64_t entry = entries_.at(input);
  return {.message = message_of(entry), .masked = (entry & kMasked) != 0};
}

void IoApic::announce_all_routes() {
  if (route_listener_ == nullptr) return;
  for (uint32_t input = 0; input < kInputCount; ++input) route_listener_->route_changed(input);
}

void IoApic::post(const Outbox& outbox) {
  for (uint32_t i = 0; i < outbox.count; ++i) sink_.send_message(outbox.messages[i]);
}

// Inputs

void IoApic::set_irq(uint32_t input, bool asserted) {
  if (input >= kInputCount) return;
  Outbox outbox;
  {
    LockGuard lock(mutex_);
    const uint32_t bit = 1u << input;
    const bool rose = asserted && (asserted_ & bit) == 0;
    asserted_ = asserted ? asserted_ | bit : asserted_ & ~bit;
    const uint64_t entry = entries_[input];
    if ((entry & kLevel) != 0) {
      send_level(input, outbox);
    } else if (rose && (entry & kMasked) == 0) {
      // An edge on a masked input is lost (82093AA, 3.2.4).
      outbox.messages[outbox.count++] = message_of(entry);
    }
  }
  post(outbox);
}

// A level interrupt is sent once; remote IRR holds further ones back until its end.
void IoApic::send_level(uint32_t input, Outbox& outbox) {
  uint64_t& entry = entries_[input];
  if ((entry & kLevel) == 0 || (entry & (kMasked | kRemoteIrr)) != 0 || (asserted_ >> input & 1) == 0) return;
  entry |= kRemoteIrr;
  outbox.messages[outbox.count++] = message_of(entry);
}

void IoApic::end_of_interrupt(uint8_t vector) {
  Outbox outbox;
  {
    LockGuard lock(mutex_);
    complete(vector, outbox);
  }
  post(outbox);
}

void IoApic::complete(uint8_t vector, Outbox& outbox) {
  for (uint32_t input = 0; input < kInputCount; ++input) {
    uint64_t& entry = entries_[input];
    if (static_cast<uint8_t>(entry) != vector || (entry & kRemoteIrr) == 0) continue;
    entry &= ~kRemoteIrr;
    send_level(input, outbox);
  }
}

// Registers

void IoApic::read_mmio(uint64_t offset, MutableByteSpan out) {
  LockGuard lock(mutex_);
  uint32_t value = 0;
  if (offset == kSelect) value = select_;
  if (offset == kWindow) value = read_register(select_);
  store_little(out, value);
}

void IoApic::write_mmio(uint64_t offset, ByteSpan in) {
  const auto value = static_cast<uint32_t>(load_little(in));
  Outbox outbox;
  bool route_written = false;
  uint32_t input = 0;
  {
    LockGuard lock(mutex_);
    if (offset == kSelect) {
      select_ = static_cast<uint8_t>(value);
    } else if (offset == kWindow) {
      route_written = write_register(select_, value, outbox);
      input = route_written ? (select_ - kFirstEntry) / 2u : 0;
    } else if (offset == kEndOfInterrupt) {
      complete(static_cast<uint8_t>(value), outbox);
    }
  }
  if (route_written && route_listener_ != nullptr) route_listener_->route_changed(input);
  post(outbox);
}

uint32_t IoApic::read_register(uint8_t index) const {
  switch (index) {
    case kId:
    case kArbitration:
      return uint32_t{id_} << 24;
    case kVersion:
      return kVersionValue;
    default:
      break;
  }
  if (index < kFirstEntry || index >= kFirstEntry + 2 * kInputCount) return 0xFFFFFFFF;
  const uint64_t entry = entries_[(index - kFirstEntry) / 2u];
  return static_cast<uint32_t>(index % 2 == 0 ? entry : entry >> 32);
}

bool IoApic::write_register(uint8_t index, uint32_t value, Outbox& outbox) {
  if (index == kId) id_ = value >> 24 & 0xF;
  if (index < kFirstEntry || index >= kFirstEntry + 2 * kInputCount) return false;
  const uint32_t input = (index - kFirstEntry) / 2u;
  const uint64_t old = entries_[input];
  const uint64_t next =
      index % 2 == 0 ? (old & 0xFFFFFFFF00000000) | value : (old & 0xFFFFFFFF) | uint64_t{value} << 32;
  write_entry(input, next, outbox);
  return true;
}

void IoApic::write_entry(uint32_t input, uint64_t value, Outbox& outbox) {
  uint64_t& entry = entries_[input];
  entry = (value & kWritable) | (entry & kRemoteIrr);
  // Edge mode has no remote IRR: older kernels end a stuck interrupt by switching to it and back.
  if ((entry & kLevel) == 0) entry &= ~kRemoteIrr;
  send_level(input, outbox);
}

// Saved state

void IoApic::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  writer.put("select", select_).put("id", id_).put("asserted", asserted_);
  for (uint32_t input = 0; input < kInputCount; ++input) writer.put(fmt::format("entry{}", input), entries_[input]);
}

Result<> IoApic::restore_state(const StateReader& reader) {
  const auto select = static_cast<uint8_t>(TRY(reader.get("select", 0xFF)));
  const auto id = static_cast<uint8_t>(TRY(reader.get("id", 0xF)));
  const auto asserted = static_cast<uint32_t>(TRY(reader.get("asserted", (1u << kInputCount) - 1)));
  std::array<uint64_t, kInputCount> entries;
  for (uint32_t input = 0; input < kInputCount; ++input) {
    const uint64_t entry = TRY(reader.get(fmt::format("entry{}", input)));
    if ((entry & ~(kWritable | kRemoteIrr)) != 0 || (entry & (kRemoteIrr | kLevel)) == kRemoteIrr) {
      return fail("{}: entry {} is {:#x}", reader.path(), input, entry);
    }
    entries[input] = entry;
  }
  {
    LockGuard lock(mutex_);
    select_ = select;
    id_ = id;
    asserted_ = asserted;
    entries_ = entries;
  }
  announce_all_routes();
  return {};
}

}  // namespace bulkhead::device::interrupt

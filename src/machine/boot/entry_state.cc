#include "machine/boot/entry_state.h"

#include <algorithm>
#include <array>
#include <vector>

#include "machine/board/address_map.h"
#include "spec/boot/linux_boot.h"

namespace bulkhead::machine::boot {
namespace {

constexpr uint64_t kProtectionEnable = 1u << 0;
constexpr uint64_t kExtensionType = 1u << 4;
constexpr uint64_t kPaging = 1u << 31;
constexpr uint64_t kPhysicalAddressExtension = 1u << 5;
constexpr uint64_t kLongModeEnable = 1u << 8;
constexpr uint64_t kLongModeActive = 1u << 10;

// Descriptors 2 (code), 3 (data) and 4 (an available TSS), each flat; the code differs between the modes.
constexpr uint16_t kCodeSelector = spec::linux_boot::kBootCodeSelector;
constexpr uint16_t kDataSelector = spec::linux_boot::kBootDataSelector;
constexpr uint16_t kTaskSelector = 0x20;
constexpr uint64_t kCode32Descriptor = 0x00CF'9B00'0000'FFFF;
constexpr uint64_t kCode64Descriptor = 0x00AF'9B00'0000'FFFF;
constexpr uint64_t kDataDescriptor = 0x00CF'9300'0000'FFFF;
constexpr uint64_t kTaskDescriptor = 0x0000'8B00'0000'0067;
constexpr uint32_t kCode32Attributes = 0xC09B;
constexpr uint32_t kCode64Attributes = 0xA09B;
constexpr uint32_t kDataAttributes = 0xC093;
constexpr uint32_t kTaskAttributes = 0x008B;

Result<cpu::State> make_flat_state(memory::GuestMemory& memory, Placement& placement, uint64_t entry,
                                   uint64_t code_descriptor, uint32_t code_attributes) {
  // Entries 5 and 0 stay null: in long mode the TSS takes two.
  const std::array<uint64_t, 6> descriptors{0, 0, code_descriptor, kDataDescriptor, kTaskDescriptor, 0};
  const uint64_t table =
      TRY(placement.place_lowest({"the descriptor table", sizeof descriptors, 64, kBootDataStart, kBootDataEnd}));
  TRY(write_ram(memory, table, as_bytes(descriptors)));

  cpu::State state = cpu::reset_state(0);
  state.gpr.fill(0);
  state.rip = entry;
  state.rflags = 2;
  for (cpu::Segment& segment : state.segments) segment = {0, 0xFFFF'FFFF, kDataSelector, kDataAttributes};
  state.segments[cpu::kCs] = {0, 0xFFFF'FFFF, kCodeSelector, code_attributes};
  state.tr = {0, 0x67, kTaskSelector, kTaskAttributes};
  state.ldtr = {0, 0, 0, cpu::Segment::kUnusable};
  state.gdtr = {table, sizeof descriptors - 1};
  state.idtr = {0, 0};
  state.cr0 = kProtectionEnable | kExtensionType;
  state.activity = cpu::Activity::kRunning;
  set_memory_types(state);
  return state;
}

}  // namespace

void set_memory_types(cpu::State& state) {
  // SDM 3, 12.11: types 0 uncacheable and 6 write-back; one byte for each part of a fixed range.
  constexpr uint64_t kAllWriteBack = 0x0606'0606'0606'0606;
  constexpr uint64_t kAllUncacheable = 0;
  constexpr size_t kVideoRange = 2;  // IA32_MTRR_FIX16K_A0000
  constexpr uint64_t kEnableAll = 0xC00;
  constexpr uint64_t kWriteBack = 6;
  constexpr uint64_t kMaskValid = 1u << 11;
  constexpr uint64_t kHoleSize = memory::GuestMemory::kHoleEnd - memory::GuestMemory::kHoleStart;
  state.msr_mtrr_fixed.fill(kAllWriteBack);
  state.msr_mtrr_fixed[kVideoRange] = kAllUncacheable;
  state.msr_mtrr_variable.fill(0);
  state.msr_mtrr_variable[0] = memory::GuestMemory::kHoleStart;
  state.msr_mtrr_variable[1] = (((1ull << kPhysicalAddressBits) - 1) & ~(kHoleSize - 1)) | kMaskValid;
  state.msr_mtrr_def_type = kEnableAll | kWriteBack;
}

Result<cpu::State> make_protected_mode_state(memory::GuestMemory& memory, Placement& placement, uint64_t entry) {
  return make_flat_state(memory, placement, entry, kCode32Descriptor, kCode32Attributes);
}

Result<cpu::State> make_long_mode_state(memory::GuestMemory& memory, Placement& placement, uint64_t entry) {
  constexpr uint64_t kPresentWritable = 3;
  constexpr uint64_t kLargePage = 1u << 7;
  constexpr uint64_t kEntriesPerTable = 512;
  constexpr uint64_t kDirectoryCount = 4;  // of 1 GiB each
  constexpr uint64_t kTableCount = 2 + kDirectoryCount;
  const uint64_t tables = TRY(
      placement.place_lowest({"the page tables", kTableCount * kPageSize, kPageSize, kBootDataStart, kBootDataEnd}));

  std::vector<uint64_t> entries(kTableCount * kEntriesPerTable);
  entries[0] = (tables + kPageSize) | kPresentWritable;
  for (uint64_t i = 0; i < kDirectoryCount; ++i) {
    entries[kEntriesPerTable + i] = (tables + (2 + i) * kPageSize) | kPresentWritable;
  }
  for (uint64_t i = 0; i < kDirectoryCount * kEntriesPerTable; ++i) {
    entries[2 * kEntriesPerTable + i] = (i << 21) | kPresentWritable | kLargePage;
  }
  TRY(write_ram(memory, tables, {reinterpret_cast<const uint8_t*>(entries.data()), entries.size() * sizeof(uint64_t)}));

  cpu::State state = TRY(make_flat_state(memory, placement, entry, kCode64Descriptor, kCode64Attributes));
  state.cr0 |= kPaging;
  state.cr3 = tables;
  state.cr4 = kPhysicalAddressExtension;
  state.efer = kLongModeEnable | kLongModeActive;
  return state;
}

Result<> write_ram(memory::GuestMemory& memory, uint64_t address, ByteSpan bytes) {
  if (!memory.write({address}, bytes)) return fail("{} bytes at {:#x} do not lie in RAM", bytes.size(), address);
  return {};
}

Result<> clear_ram(memory::GuestMemory& memory, uint64_t address, uint64_t size) {
  if (size == 0) return {};
  uint8_t* bytes = memory.data({address}, size);
  if (bytes == nullptr) return fail("{} bytes at {:#x} do not lie in RAM", size, address);
  std::memset(bytes, 0, size);
  memory.mark_written({address}, size);
  return {};
}

Result<uint64_t> place_string(memory::GuestMemory& memory, Placement& placement, std::string_view what,
                              std::string_view text) {
  const uint64_t address = TRY(placement.place_lowest({what, text.size() + 1, 16, kBootDataStart, kBootDataEnd}));
  std::vector<uint8_t> bytes(text.begin(), text.end());
  bytes.push_back(0);
  TRY(write_ram(memory, address, bytes));
  return address;
}

}  // namespace bulkhead::machine::boot

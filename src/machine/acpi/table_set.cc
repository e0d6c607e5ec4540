#include "machine/acpi/table_set.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "support/check.h"

namespace bulkhead::machine::acpi {
namespace {

// The commands of the table loader that SeaBIOS and OVMF run (the layout is that of QEMU's bios-linker-loader): 128
// bytes each, the unused rest zero.
constexpr size_t kCommandSize = 128;
constexpr size_t kFileNameSize = 56;
enum Command : uint32_t { kAllocate = 1, kAddPointer = 2, kAddChecksum = 3 };
enum Zone : uint8_t { kHighZone = 1, kFirstMegabyteZone = 2 };
constexpr uint32_t kRsdpAlignment = 16;

std::string_view file_name(File file) {
  return file == File::kRsdp ? kRsdpFileName : kTablesFileName;
}

class CommandWriter {
 public:
  CommandWriter(std::vector<uint8_t>& script, Command command) : script_(script), at_(script.size()) {
    script_.resize(at_ + kCommandSize);
    number(static_cast<uint32_t>(command));
  }
  CommandWriter& name(File file) {
    std::ranges::copy(file_name(file), script_.begin() + static_cast<ptrdiff_t>(at_));
    at_ += kFileNameSize;
    return *this;
  }
  template <typename T>
  CommandWriter& number(T value) {
    store(&script_[at_], value);
    at_ += sizeof value;
    return *this;
  }

 private:
  std::vector<uint8_t>& script_;
  size_t at_;
};

}  // namespace

uint32_t TableSet::add_table(std::vector<uint8_t> table) {
  CHECK(table.size() >= sizeof(spec::acpi::TableHeader), "an ACPI table has a header");
  const uint32_t offset = add_plain(table, 8);
  const auto size = static_cast<uint32_t>(table.size());
  store(&tables_[offset + offsetof(spec::acpi::TableHeader, length)], size);
  add_checksum(File::kTables, offset + offsetof(spec::acpi::TableHeader, checksum), offset, size);
  return offset;
}

uint32_t TableSet::add_plain(ByteSpan bytes, uint32_t alignment) {
  const auto offset = static_cast<uint32_t>(align_up(tables_.size(), alignment));
  tables_.resize(offset);
  tables_.insert(tables_.end(), bytes.begin(), bytes.end());
  return offset;
}

void TableSet::set_rsdp(const spec::acpi::Rsdp& rsdp) {
  const ByteSpan bytes = as_bytes(rsdp);
  rsdp_.assign(bytes.begin(), bytes.end());
  add_checksum(File::kRsdp, offsetof(spec::acpi::Rsdp, checksum), 0, spec::acpi::kRsdpFirstPart);
  add_checksum(File::kRsdp, offsetof(spec::acpi::Rsdp, extended_checksum), 0, sizeof rsdp);
}

void TableSet::add_pointer(File in, uint32_t offset, uint8_t size, File target, uint32_t target_offset) {
  std::vector<uint8_t>& file = bytes(in);
  CHECK((size == 4 || size == 8) && range_fits(offset, size, file.size()), "an ACPI pointer outside of its file");
  std::memset(&file[offset], 0, size);
  store(&file[offset], target_offset);
  pointers_.push_back({in, offset, size, target});
}

void TableSet::add_checksum(File in, uint32_t offset, uint32_t start, uint32_t length) {
  CHECK(range_fits(start, length, bytes(in).size()) && offset - start < length,
        "an ACPI checksum outside of its range");
  bytes(in)[offset] = 0;
  checksums_.push_back({in, offset, start, length});
}

TableSet::Placed TableSet::place(uint64_t rsdp_address, uint64_t tables_address) const {
  Placed placed{rsdp_, tables_};
  const auto bytes_of = [&](File file) -> std::vector<uint8_t>& {
    return file == File::kRsdp ? placed.rsdp : placed.tables;
  };
  for (const Pointer& pointer : pointers_) {
    const uint64_t base = pointer.target == File::kRsdp ? rsdp_address : tables_address;
    const MutableByteSpan field = MutableByteSpan(bytes_of(pointer.in)).subspan(pointer.offset, pointer.size);
    store_little(field, load_little(field) + base);
  }
  for (const Checksum& checksum : checksums_) {
    std::vector<uint8_t>& file = bytes_of(checksum.in);
    const auto first = file.begin() + static_cast<ptrdiff_t>(checksum.start);
    const auto sum = std::accumulate(first, first + static_cast<ptrdiff_t>(checksum.length), uint8_t{0},
                                     [](uint8_t a, uint8_t b) { return static_cast<uint8_t>(a + b); });
    file[checksum.offset] = static_cast<uint8_t>(file[checksum.offset] - sum);
  }
  return placed;
}

std::vector<uint8_t> TableSet::loader_script() const {
  std::vector<uint8_t> script;
  CommandWriter(script, kAllocate)
      .name(File::kRsdp)
      .number(kRsdpAlignment)
      .number(static_cast<uint8_t>(kFirstMegabyteZone));
  CommandWriter(script, kAllocate)
      .name(File::kTables)
      .number(spec::acpi::kFacsAlignment)
      .number(static_cast<uint8_t>(kHighZone));
  for (const Pointer& pointer : pointers_) {
    CommandWriter(script, kAddPointer)
        .name(pointer.in)
        .name(pointer.target)
        .number(pointer.offset)
        .number(pointer.size);
  }
  for (const Checksum& checksum : checksums_) {
    CommandWriter(script, kAddChecksum)
        .name(checksum.in)
        .number(checksum.offset)
        .number(checksum.start)
        .number(checksum.length);
  }
  return script;
}

}  // namespace bulkhead::machine::acpi

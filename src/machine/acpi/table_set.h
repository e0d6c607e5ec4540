// The two ACPI files of the machine, the root pointer and all tables, with the places in them that hold addresses and
// checksums. They can be put at a fixed place in RAM, or handed to firmware with a script that says how to place them.
// Built, never parsed back (DEVICE_SAFETY rule 30).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "spec/acpi/tables.h"
#include "support/bytes.h"

namespace bulkhead::machine::acpi {

enum class File : uint8_t { kRsdp, kTables };
inline constexpr std::string_view kRsdpFileName = "etc/acpi/rsdp";
inline constexpr std::string_view kTablesFileName = "etc/acpi/tables";
inline constexpr std::string_view kLoaderFileName = "etc/table-loader";

class TableSet {
 public:
  // Appends a table to the tables file and returns its offset. Length and checksum of a TableHeader are seen to.
  uint32_t add_table(std::vector<uint8_t> table);
  // A structure without a header, aligned in the file.
  uint32_t add_plain(ByteSpan bytes, uint32_t alignment);
  void set_rsdp(const spec::acpi::Rsdp& rsdp);

  // The field of size bytes (4 or 8) at offset of in will hold the address of target's byte target_offset.
  void add_pointer(File in, uint32_t offset, uint8_t size, File target, uint32_t target_offset);
  // The byte at offset of in makes [start, start + length) sum to zero.
  void add_checksum(File in, uint32_t offset, uint32_t start, uint32_t length);

  struct Placed {
    std::vector<uint8_t> rsdp;
    std::vector<uint8_t> tables;
  };
  // Final bytes for files that lie at these addresses.
  [[nodiscard]] Placed place(uint64_t rsdp_address, uint64_t tables_address) const;
  // Files for fw_cfg: pointers hold offsets and checksums are zero until firmware has run the script.
  [[nodiscard]] const std::vector<uint8_t>& file(File which) const { return which == File::kRsdp ? rsdp_ : tables_; }
  [[nodiscard]] std::vector<uint8_t> loader_script() const;

 private:
  struct Pointer {
    File in;
    uint32_t offset;
    uint8_t size;
    File target;
  };
  struct Checksum {
    File in;
    uint32_t offset;
    uint32_t start;
    uint32_t length;
  };
  std::vector<uint8_t>& bytes(File which) { return which == File::kRsdp ? rsdp_ : tables_; }

  std::vector<uint8_t> rsdp_;
  std::vector<uint8_t> tables_;
  std::vector<Pointer> pointers_;
  std::vector<Checksum> checksums_;
};

}  // namespace bulkhead::machine::acpi

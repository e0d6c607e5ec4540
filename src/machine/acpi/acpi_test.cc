#include "machine/acpi/acpi.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include <gtest/gtest.h>
#include <unistd.h>

namespace bulkhead::machine::acpi {
namespace {

using namespace spec::acpi;
using Bytes = std::vector<uint8_t>;

constexpr uint64_t kRsdpAt = 0xE'0000;
constexpr uint64_t kTablesAt = 0xE'0040;

BoardDescription some_board(uint32_t vcpu_count) {
  BoardDescription board;
  board.vcpu_count = vcpu_count;
  board.pci_window64 = {1ull << 32, 1ull << 30};
  board.serial_ports = {{{0x3F8, 4}, {0x2F8, 3}, {0x3E8, 4}, {0x2E8, 3}}};
  board.pci_isa_irqs = {10, 11, 10, 11};
  return board;
}

uint8_t sum(ByteSpan bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), uint8_t{0},
                         [](uint8_t a, uint8_t b) { return static_cast<uint8_t>(a + b); });
}

// Finds tables as an operating system does: RSDP, XSDT, entries.
class TableReader {
 public:
  explicit TableReader(const BoardDescription& board) : placed_(make_tables(board).place(kRsdpAt, kTablesAt)) {}

  [[nodiscard]] ByteSpan at(uint64_t address) const { return ByteSpan(placed_.tables).subspan(address - kTablesAt); }
  [[nodiscard]] Rsdp rsdp() const { return load<Rsdp>(placed_.rsdp.data()); }
  [[nodiscard]] ByteSpan table_at(uint64_t address) const {
    const ByteSpan rest = at(address);
    return rest.first(load<TableHeader>(rest.data()).length);
  }
  [[nodiscard]] std::vector<ByteSpan> all() const {
    const ByteSpan xsdt = table_at(rsdp().xsdt_address);
    std::vector<ByteSpan> tables{xsdt};
    for (size_t i = sizeof(TableHeader); i < xsdt.size(); i += 8) tables.push_back(table_at(load<uint64_t>(&xsdt[i])));
    tables.push_back(table_at(load<Fadt>(find("FACP").data()).x_dsdt));
    return tables;
  }
  [[nodiscard]] ByteSpan find(std::string_view signature) const {
    const ByteSpan xsdt = table_at(rsdp().xsdt_address);
    for (size_t i = sizeof(TableHeader); i < xsdt.size(); i += 8) {
      const ByteSpan table = table_at(load<uint64_t>(&xsdt[i]));
      if (signature == std::string_view(reinterpret_cast<const char*>(table.data()), 4)) return table;
    }
    return {};
  }
  [[nodiscard]] const TableSet::Placed& placed() const { return placed_; }

 private:
  TableSet::Placed placed_;
};

TEST(AcpiTables, AreReachableFromTheRootPointerWithRightChecksums) {
  const TableReader reader(some_board(4));
  EXPECT_EQ(sum(ByteSpan(reader.placed().rsdp).first(kRsdpFirstPart)), 0);
  EXPECT_EQ(sum(reader.placed().rsdp), 0);
  EXPECT_EQ(reader.all().size(), 6u);
  for (const ByteSpan table : reader.all()) EXPECT_EQ(sum(table), 0);
  for (const char* signature : {"FACP", "APIC", "MCFG", "HPET"})
    EXPECT_FALSE(reader.find(signature).empty()) << signature;
}

TEST(AcpiTables, FadtPointsToFacsAndDsdtAndNamesTheResetRegister) {
  const TableReader reader(some_board(1));
  const auto fadt = load<Fadt>(reader.find("FACP").data());
  EXPECT_EQ(uint64_t{fadt.x_dsdt}, uint64_t{fadt.dsdt});
  EXPECT_EQ(fadt.firmware_control % kFacsAlignment, 0u);
  EXPECT_EQ(std::memcmp(reader.at(fadt.firmware_control).data(), "FACS", 4), 0);
  EXPECT_EQ(uint64_t{fadt.reset_register.address}, 0xCF9u);
  EXPECT_EQ(uint64_t{fadt.pm1a_control_block}, uint64_t{fadt.x_pm1a_control_block.address});
}

TEST(AcpiTables, MadtListsEveryProcessorAndTheTimerOverride) {
  const TableReader reader(some_board(16));
  const ByteSpan madt = reader.find("APIC");
  std::vector<unsigned> apic_ids;
  bool has_timer_override = false;
  for (size_t at = sizeof(Madt); at < madt.size(); at += madt[at + 1]) {
    ASSERT_GE(madt[at + 1], 2);
    if (madt[at] == 0) apic_ids.push_back(load<MadtLocalApic>(&madt[at]).apic_id);
    if (madt[at] == 2 && load<MadtSourceOverride>(&madt[at]).source == 0) {
      has_timer_override = load<MadtSourceOverride>(&madt[at]).gsi == 2;
    }
  }
  EXPECT_EQ(apic_ids.size(), 16u);
  EXPECT_EQ(apic_ids.back(), 15u);
  EXPECT_TRUE(has_timer_override);
}

TEST(AcpiTables, FitBelowTheSmbiosArea) {
  EXPECT_LE(TableReader(some_board(kMaximumVcpuCount)).placed().tables.size(), kSmbiosStart - kTablesAt);
}

// Runs the loader's script as firmware would and compares with the tables placed by ourselves.
TEST(AcpiTables, TheLoaderScriptGivesTheSameTables) {
  const TableSet set = make_tables(some_board(2));
  Bytes rsdp = set.file(File::kRsdp);
  Bytes tables = set.file(File::kTables);
  const Bytes script = set.loader_script();
  ASSERT_EQ(script.size() % 128, 0u);
  const auto file = [&](size_t at) -> Bytes& {
    return std::string_view(reinterpret_cast<const char*>(&script[at])) == kRsdpFileName ? rsdp : tables;
  };
  unsigned allocations = 0;
  for (size_t at = 0; at < script.size(); at += 128) {
    switch (load<uint32_t>(&script[at])) {
      case 1:
        ++allocations;
        break;
      case 2: {
        const auto offset = load<uint32_t>(&script[at + 116]);
        const MutableByteSpan field = MutableByteSpan(file(at + 4)).subspan(offset, script[at + 120]);
        store_little(field, load_little(field) + (&file(at + 60) == &rsdp ? kRsdpAt : kTablesAt));
        break;
      }
      case 3: {
        Bytes& in = file(at + 4);
        const auto offset = load<uint32_t>(&script[at + 60]);
        in[offset] = static_cast<uint8_t>(
            in[offset] - sum(ByteSpan(in).subspan(load<uint32_t>(&script[at + 64]), load<uint32_t>(&script[at + 68]))));
        break;
      }
      default:
        FAIL() << "command " << load<uint32_t>(&script[at]);
    }
  }
  EXPECT_EQ(allocations, 2u);
  const TableSet::Placed placed = set.place(kRsdpAt, kTablesAt);
  EXPECT_EQ(rsdp, placed.rsdp);
  EXPECT_EQ(tables, placed.tables);
}

TEST(Aml, EncodesIntegersNamesAndLengthsAsTheSpecificationSays) {
  using namespace aml;
  EXPECT_EQ(integer(0), (Code{0x00}));
  EXPECT_EQ(integer(1), (Code{0x01}));
  EXPECT_EQ(integer(0xFF), (Code{0x0A, 0xFF}));
  EXPECT_EQ(integer(0x1234), (Code{0x0B, 0x34, 0x12}));
  EXPECT_EQ(integer(0x12345678), (Code{0x0C, 0x78, 0x56, 0x34, 0x12}));
  EXPECT_EQ(integer(1ull << 32), (Code{0x0E, 0, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(path("\\_SB.PCI0"), (Code{'\\', 0x2E, '_', 'S', 'B', '_', 'P', 'C', 'I', '0'}));
  EXPECT_EQ(path("RTC"), (Code{'R', 'T', 'C', '_'}));
  EXPECT_EQ(eisa_id("PNP0A03"), (Code{0x0C, 0x41, 0xD0, 0x0A, 0x03}));
  // One byte of length up to 63, then two up to 4095, then three.
  EXPECT_EQ(scope("A", {Code(58, 0xA3)})[1], 63);
  EXPECT_EQ((Code{scope("A", {Code(59, 0xA3)})[1], scope("A", {Code(59, 0xA3)})[2]}), (Code{0x41, 0x04}));
  EXPECT_EQ(scope("A", {Code(4089, 0xA3)})[1] >> 6, 1);
  EXPECT_EQ(scope("A", {Code(4090, 0xA3)})[1] >> 6, 2);
}

// iasl takes every table apart and puts the DSDT together again; it reports what contradicts the specification.
TEST(AcpiTables, PassThroughTheReferenceCompilerWithoutErrors) {
  if (std::system("iasl -v >/dev/null 2>&1") != 0) GTEST_SKIP() << "no iasl (Debian package acpica-tools)";
  const auto directory = std::filesystem::temp_directory_path() / fmt::format("bulkhead-acpi-{}", ::getpid());
  std::filesystem::create_directories(directory);
  const TableReader reader(some_board(4));
  for (const ByteSpan table : reader.all()) {
    const std::string signature(reinterpret_cast<const char*>(table.data()), 4);
    const std::string stem = (directory / signature).string();
    std::ofstream(stem + ".dat", std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
    EXPECT_EQ(std::system(fmt::format("iasl -d '{0}.dat' > '{0}.log' 2>&1", stem).c_str()), 0) << signature;
    EXPECT_EQ(std::system(fmt::format("iasl -ve '{0}.dsl' >> '{0}.log' 2>&1", stem).c_str()), 0) << signature;
    std::ifstream log(stem + ".log");
    const std::string text{std::istreambuf_iterator<char>(log), std::istreambuf_iterator<char>()};
    EXPECT_EQ(text.find("Error "), std::string::npos) << text;
    EXPECT_EQ(text.find("Invalid"), std::string::npos) << text;
    EXPECT_EQ(text.find("incorrect"), std::string::npos) << text;
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace bulkhead::machine::acpi

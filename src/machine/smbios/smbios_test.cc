#include "machine/smbios/smbios.h"

#include <map>
#include <numeric>
#include <string_view>

#include <gtest/gtest.h>

namespace bulkhead::machine::smbios {
namespace {

using namespace spec::smbios;

struct Found {
  ByteSpan structure;
  std::vector<std::string> strings;
};

// Walks the structures by their lengths and string sets, as dmidecode does.
std::multimap<unsigned, Found> walk(ByteSpan bytes) {
  std::multimap<unsigned, Found> found;
  size_t at = 0;
  while (at + sizeof(Header) <= bytes.size()) {
    const auto header = load<Header>(&bytes[at]);
    Found one{bytes.subspan(at, header.length), {}};
    at += header.length;
    while (bytes[at] != 0) {
      one.strings.emplace_back(reinterpret_cast<const char*>(&bytes[at]));
      at += one.strings.back().size() + 1;
    }
    at += one.strings.empty() ? 2 : 1;
    found.emplace(header.type, std::move(one));
  }
  EXPECT_EQ(at, bytes.size());
  return found;
}

TEST(Smbios, ListsTheMachineItsProcessorsAndItsMemory) {
  const auto memory = memory::GuestMemory::create(5ull << 30).value();
  Description description{{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 1, 2, 3, 4, 5, 6, 7, 8}, "scada-1", 4};
  const Tables tables = make_tables(description, *memory);
  const auto found = walk(tables.structures);
  for (const unsigned type : {0, 1, 3, 4, 16, 17, 32, 127}) EXPECT_EQ(found.count(type), 1u) << type;
  EXPECT_EQ(found.count(19), 2u) << "RAM lies in two parts";

  const auto& system = found.find(1)->second;
  const auto fields = load<System>(system.structure.data());
  EXPECT_EQ(system.strings.at(fields.serial_number - 1u), "scada-1");
  EXPECT_EQ((std::vector<uint8_t>(fields.uuid, fields.uuid + 10)),
            (std::vector<uint8_t>{0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0x88, 0x77, 1, 2}));
  EXPECT_EQ(unsigned{load<Processor>(found.find(4)->second.structure.data()).core_count}, 4u);
  EXPECT_EQ(unsigned{load<MemoryDevice>(found.find(17)->second.structure.data()).size}, 5120u);
  EXPECT_EQ(uint32_t{load<MappedAddress>(found.find(19)->second.structure.data()).last_kib}, 3u * 1024 * 1024 - 1);
}

TEST(Smbios, EntryPointSumsToZeroAndPointsToTheStructures) {
  const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  const Tables tables = make_tables({}, *memory);
  const EntryPoint entry = place(tables, 0xF'0020);
  const ByteSpan bytes = as_bytes(entry);
  EXPECT_EQ(std::accumulate(bytes.begin(), bytes.end(), 0u) % 256, 0u);
  EXPECT_EQ(entry.table_address, 0xF'0020u);
  EXPECT_EQ(entry.maximum_size, tables.structures.size());
}

TEST(Smbios, StringsOfTheUserCannotBreakTheStructures) {
  const auto memory = memory::GuestMemory::create(memory::GuestMemory::kMinimumSize).value();
  Description description;
  description.serial_number = std::string("a\0b", 3) + std::string(1000, 'x');
  const auto found = walk(make_tables(description, *memory).structures);
  EXPECT_EQ(found.count(127), 1u);
  EXPECT_EQ(found.find(1)->second.strings.back(), "a?b" + std::string(61, 'x'));
}

}  // namespace
}  // namespace bulkhead::machine::smbios

#include "net/capture/pcapng.h"

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace bulkhead::net::capture {
namespace {

struct Folder {
  Folder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path = "/tmp/capture-XXXXXX";
};

std::unique_ptr<PcapngRing> open_ring(const std::string& path, uint64_t limit_bytes = PcapngRing::kLeastBytes) {
  auto made = PcapngRing::create(path, limit_bytes);
  if (!made) throw std::runtime_error(made.error().message);
  return std::move(*made);
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The frames of a file as "PORT>text" where the port sent them and "PORT<text" where it got them, by the letter of
// draft-ietf-opsawg-pcapng.
std::vector<std::string> frames_of(const std::string& path) {
  std::vector<std::string> frames, interfaces;
  const std::string file = bytes_of(path);
  const auto word = [&](size_t at) {
    EXPECT_LE(at + 4, file.size()) << path;
    return at + 4 <= file.size() ? load<uint32_t>(reinterpret_cast<const uint8_t*>(file.data()) + at) : 0;
  };
  for (size_t at = 0; at < file.size();) {
    const uint32_t type = word(at), size = word(at + 4);
    EXPECT_EQ(word(at + size - 4), size) << "block at " << at;
    if (size < 12 || word(at + size - 4) != size) break;
    if (type == 0x0A0D0D0A) interfaces.clear();
    if (type == 1) {
      EXPECT_EQ(word(at + 16) & 0xFFFF, 2u) << "its first option is its name";
      interfaces.push_back(file.substr(at + 20, word(at + 16) >> 16));
    }
    if (type == 6) {
      const uint32_t interface = word(at + 8), captured = word(at + 20);
      EXPECT_LT(interface, interfaces.size());
      const size_t options = at + 28 + (captured + 3) / 4 * 4;
      EXPECT_EQ(word(options), 0x00040002u) << "flags";
      frames.push_back(interfaces.at(interface) + (word(options + 4) == 1 ? ">" : "<") +
                       file.substr(at + 28, captured));
    }
    at += size;
  }
  return frames;
}

void write(const std::unique_ptr<PcapngRing>& ring, std::string_view text, std::string_view port, bool is_sent = true) {
  ring->write({.frame = ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()),
               .time_ns = 1'700'000'000'000'000'001,
               .port = port,
               .is_sent = is_sent});
}

using Frames = std::vector<std::string>;

TEST(Pcapng, NamesThePortOfEachFrameAndKeepsWhatAFormerProcessWrote) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  {
    auto ring = open_ring(path);
    write(ring, "one", "plc1.0");
    write(ring, "three bytes", "historian.0", false);
    write(ring, "two", "plc1.0", false);
  }
  {
    auto ring = open_ring(path);
    write(ring, "again", "historian.0");
  }
  EXPECT_EQ(frames_of(path), (Frames{"plc1.0>one", "historian.0<three bytes", "plc1.0<two", "historian.0>again"}));
}

TEST(Pcapng, TwoFilesTakeTurnsAcrossStartsToo) {
  const Folder folder;
  const std::string path = folder.path + "/c", text(1000, 'x');
  const auto count = [&] { return std::pair(frames_of(path).size(), frames_of(path + ".1").size()); };
  {
    auto ring = open_ring(path);
    while (count().second == 0) write(ring, text, "a");
    EXPECT_EQ(count().second, 1u);
  }
  const size_t full = count().first;
  EXPECT_GT(full, 100u);
  {
    // The second file is the later one.
    auto ring = open_ring(path);
    write(ring, text, "a");
    EXPECT_EQ(count(), std::pair(full, size_t{2}));
    while (count().second != 0 && count().first == full) write(ring, text, "a");
    EXPECT_EQ(count().first, 1u);
    EXPECT_EQ(ring->lost(), 0u);
  }
  for (const char* const file : {"/c", "/c.1"}) {
    EXPECT_LE(std::filesystem::file_size(folder.path + file), PcapngRing::kLeastBytes / 2);
  }
  // A process that only starts and ends fills nothing.
  for (unsigned i = 0; i < 6000; ++i) (void)open_ring(path);
  for (const char* const file : {"/c", "/c.1"}) {
    EXPECT_LE(std::filesystem::file_size(folder.path + file), PcapngRing::kLeastBytes / 2);
  }
}

TEST(Pcapng, CutsOffWhatAKilledProcessDidNotEnd) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  {
    auto ring = open_ring(path);
    for (const char* const text : {"one", "two"}) write(ring, text, "a");
  }
  const auto size = std::filesystem::file_size(path);
  for (unsigned cut = 1; cut < 48; ++cut) {
    std::filesystem::resize_file(path, size - cut);
    auto ring = open_ring(path);
    write(ring, "two", "a");
    ASSERT_EQ(frames_of(path), (Frames{"a>one", "a>two"})) << cut;
    std::filesystem::resize_file(path, 0);
    ring = open_ring(path);
    for (const char* const text : {"one", "two"}) write(ring, text, "a");
  }
}

TEST(Pcapng, BeginsAnewWhereAProcessWasKilledWithinItsFirstBlock) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  (void)open_ring(path);
  const auto size = std::filesystem::file_size(path);
  for (size_t left = 0; left < size; left = left == 0 ? 4 : left + 1) {
    std::filesystem::resize_file(path, left);
    write(open_ring(path), "one", "a");
    ASSERT_EQ(frames_of(path), (Frames{"a>one"})) << left;
  }
}

TEST(Pcapng, BeginsAnewInAFileThatAPowerCutLeftWithoutItsBytes) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  for (const char* const suffix : {"", ".1"}) {
    for (const size_t size : {size_t{1}, size_t{4096}, size_t{PcapngRing::kLeastBytes / 2}}) {
      std::ofstream(path + suffix) << std::string(size, '\0');
      write(open_ring(path), "one", "a");
      ASSERT_EQ(frames_of(path), (Frames{"a>one"})) << suffix << " " << size;
      std::filesystem::remove(path);
      std::filesystem::remove(path + ".1");
    }
  }
  // A new disk, by a wrong name, is left alone; so is what has one byte that is not zero.
  const std::string disk(PcapngRing::kLeastBytes / 2 + 1, '\0');
  std::string text(100'000, '\0');
  text.back() = 'x';
  for (const std::string& foreign : {disk, text}) {
    std::ofstream(path) << foreign;
    EXPECT_FALSE(PcapngRing::create(path, PcapngRing::kLeastBytes));
    EXPECT_TRUE(bytes_of(path) == foreign);
  }
}

TEST(Pcapng, LeavesAForeignFileAsItIs) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  // One that ends within the type of our first block is none of ours.
  for (const std::string& text :
       {std::string("diary"), std::string(4096, 'd'), std::string("\n"), std::string("\n\r\r")}) {
    for (const char* const suffix : {"", ".1"}) {
      std::filesystem::remove(path);
      std::filesystem::remove(path + ".1");
      std::ofstream(path + suffix) << text;
      const auto made = PcapngRing::create(path, PcapngRing::kLeastBytes);
      ASSERT_FALSE(made);
      EXPECT_NE(made.error().message.find(fmt::format("capture '{}{}'", path, suffix)), std::string::npos);
      EXPECT_NE(made.error().message.find("no pcapng file of this program's"), std::string::npos);
      EXPECT_EQ(bytes_of(path + suffix), text);
    }
  }
}

// Stands for a full disk while it lives: no file of this process grows beyond so many bytes.
struct Full {
  explicit Full(uint64_t bytes) {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit now{.rlim_cur = bytes, .rlim_max = before.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &now), 0);
  }
  ~Full() {
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, handler);
  }
  Full(const Full&) = delete;
  Full& operator=(const Full&) = delete;
  rlimit before{};
  void (*handler)(int) = ::signal(SIGXFSZ, SIG_IGN);
};

TEST(Pcapng, GoesOnBehindWhatIsThereWhenAFullDiskHasRoomAgain) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  auto ring = open_ring(path);
  write(ring, "one", "a");
  const auto size = std::filesystem::file_size(path);
  // No part of a block stays, wherever in it there was no more room.
  for (uint64_t room = 0; room < 48; ++room) {
    {
      const Full full(size + room);
      write(ring, "no room", "a");
    }
    ASSERT_EQ(ring->lost(), room + 1);
    ASSERT_EQ(std::filesystem::file_size(path), size) << room;
  }
  write(ring, "two", "b");
  EXPECT_EQ(frames_of(path), (Frames{"a>one", "b>two"}));
  // The other file's turn comes while there is no room at all.
  const std::string text(1000, 'x');
  const auto before = ring->lost();
  while (std::filesystem::file_size(path) + 2000 < PcapngRing::kLeastBytes / 2) write(ring, text, "a");
  const size_t full_file = frames_of(path).size();
  {
    const Full full(0);
    for (unsigned i = 0; i < 3; ++i) write(ring, std::string(4000, 'y'), "a");
  }
  EXPECT_EQ(ring->lost(), before + 3);
  write(ring, "three", "a");
  EXPECT_EQ(frames_of(path).size(), full_file);
  EXPECT_EQ(frames_of(path + ".1"), (Frames{"a>three"}));
}

TEST(Pcapng, PortsThatComeAndGoFillNoTable) {
  const Folder folder;
  const std::string path = folder.path + "/c";
  auto ring = open_ring(path, uint64_t{4} << 20);
  for (unsigned i = 0; i < PcapngRing::kMaximumPorts + 1; ++i) write(ring, "x", fmt::format("floor#{}", i));
  EXPECT_EQ(frames_of(path).size(), PcapngRing::kMaximumPorts);
  EXPECT_EQ(frames_of(path + ".1"), (Frames{fmt::format("floor#{}>x", PcapngRing::kMaximumPorts)}));
}

}  // namespace
}  // namespace bulkhead::net::capture

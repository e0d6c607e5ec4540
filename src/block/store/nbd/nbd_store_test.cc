// The client against the server in block/nbd, in one process, at a socket in a folder of its own.
#include "block/store/nbd/nbd_store.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/format/disk_opener.h"
#include "block/format/image_disk.h"
#include "block/nbd/server.h"
#include "block/store/nbd/uri.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::nbd {
namespace {

constexpr uint64_t kDiskBytes = uint64_t{1} << 20;

// What a server stands on that loses what is not flushed when it dies, as one whose host dies with it.
class Forgetful final : public Store {
 public:
  explicit Forgetful(MemoryStore& kept) : kept_(kept), now_(kept.bytes(), kDiskBytes), store_(now_) {}
  [[nodiscard]] const std::string& name() const override { return store_.name(); }
  [[nodiscard]] Result<uint64_t> size() override { return kDiskBytes; }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return store_.read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override { return store_.write(offset, bytes); }
  [[nodiscard]] Status flush() override {
    if (flush_fails) return Status::kIoError;
    kept_.bytes() = now_.bytes();
    return Status::kOk;
  }
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override { return store_.punch(offset, size); }
  [[nodiscard]] Status truncate(uint64_t) override { return Status::kUnsupported; }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override {
    // Its first half is a hole.
    return offset < kDiskBytes / 2 ? StoreExtent{kDiskBytes / 2 - offset, true} : StoreExtent{kDiskBytes - offset};
  }
  std::atomic<bool> flush_fails{false};

 private:
  MemoryStore& kept_;
  MemoryStore now_;
  testing::SharedStore store_;
};

class Served {
 public:
  Served(const std::string& path, MemoryStore& file, bool read_only = false) : path_(path) {
    auto store = std::make_unique<Forgetful>(file);
    store_ = store.get();
    auto image =
        find_format("raw").value()->open(std::move(store), Access::kReadWrite, ImageOpener("/nonexistent")).value();
    Image& behind = *image;
    disk_ = std::make_unique<ImageDisk>(std::move(image), 2);
    export_ = std::make_unique<Export>(Export{.name = "plc", .disk = *disk_, .image = behind, .read_only = read_only});
    listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ::unlink(path.c_str());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    server_ = std::make_unique<Server>(listener_, *export_);
    thread_ = Thread("server", [this] { EXPECT_TRUE(server_->run(stop_.fd())); });
  }
  ~Served() {
    stop_.signal();
    thread_.join();
    ::unlink(path_.c_str());
  }
  Forgetful& store() { return *store_; }

 private:
  const std::string path_;
  Forgetful* store_ = nullptr;
  std::unique_ptr<ImageDisk> disk_;
  std::unique_ptr<Export> export_;
  Fd listener_;
  EventFd stop_ = EventFd::create().value();
  std::unique_ptr<Server> server_;
  Thread thread_;
};

class NbdStoreTest : public ::testing::Test {
 protected:
  NbdStoreTest() : file_(std::vector<uint8_t>(kDiskBytes), kDiskBytes) {
    std::string pattern = ::testing::TempDir() + "nbd-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    serve();
  }
  ~NbdStoreTest() override {
    served_.reset();
    std::filesystem::remove_all(folder_);
  }
  void serve(bool read_only = false) {
    served_.reset();
    served_ = std::make_unique<Served>(folder_ + "/s", file_, read_only);
  }
  [[nodiscard]] std::string uri(const std::string& name = "plc") const {
    return "nbd+unix:///" + name + "?socket=" + folder_ + "/s";
  }
  std::unique_ptr<Store> open(Access access = Access::kReadWrite) {
    auto opened = NbdStore::open(uri(), access);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? *std::move(opened) : nullptr;
  }
  static std::vector<uint8_t> read(Store& store, uint64_t offset, size_t size) {
    std::vector<uint8_t> bytes(size);
    EXPECT_EQ(store.read(offset, bytes), Status::kOk);
    return bytes;
  }

  MemoryStore file_;
  std::string folder_;
  std::unique_ptr<Served> served_;
};

std::vector<uint8_t> pattern(size_t size, uint8_t first = 1) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

TEST_F(NbdStoreTest, WritesReadsAndPunchesAtAnyPlace) {
  const auto store = open();
  EXPECT_EQ(store->size().value(), kDiskBytes);
  const auto data = pattern(5000);
  EXPECT_EQ(store->write(1000, data), Status::kOk) << "not in whole blocks of the server";
  EXPECT_EQ(read(*store, 1000, 5000), data);
  EXPECT_EQ(read(*store, 0, 1000), std::vector<uint8_t>(1000));
  EXPECT_EQ(store->punch(1024, 512), Status::kOk);
  EXPECT_EQ(read(*store, 1024, 512), std::vector<uint8_t>(512));
  EXPECT_EQ(read(*store, 1536, 1)[0], data[536]);
  EXPECT_EQ(store->punch(1024, 100), Status::kUnsupported);
  EXPECT_EQ(store->write(kDiskBytes - 512, pattern(1024)), Status::kNoSpace);
  EXPECT_EQ(read(*store, kDiskBytes - 1, 10), std::vector<uint8_t>(10)) << "behind the end";
  EXPECT_EQ(store->flush(), Status::kOk);
  EXPECT_EQ(file_.bytes()[1000], data[0]);
}

TEST_F(NbdStoreTest, KnowsWhereTheServersDataIs) {
  const auto store = open(Access::kReadOnly);
  StoreExtent extent = store->extent(4096);
  EXPECT_TRUE(extent.hole);
  EXPECT_EQ(extent.size, kDiskBytes / 2 - 4096);
  extent = store->extent(kDiskBytes / 2 + 100);
  EXPECT_FALSE(extent.hole);
  EXPECT_EQ(extent.size, kDiskBytes / 2 - 100);
}

TEST_F(NbdStoreTest, SeveralRequestsAtATimeShareAConnection) {
  const auto store = open();
  std::vector<Thread> threads;
  threads.reserve(8);
  for (uint8_t i = 0; i < 8; ++i) {
    threads.emplace_back("client", [&, i] {
      for (uint64_t round = 0; round < 20; ++round) {
        const uint64_t at = (round * 8 + i) * 4096;
        EXPECT_EQ(store->write(at, std::vector<uint8_t>(4096, i)), Status::kOk);
        EXPECT_EQ(read(*store, at, 4096), std::vector<uint8_t>(4096, i));
      }
    });
  }
}

// Whoever was answered finds it again, although the server forgot it.
TEST_F(NbdStoreTest, WhatAServerLosesIsWrittenAgain) {
  const auto store = open();
  EXPECT_EQ(store->write(0, pattern(4096)), Status::kOk);
  EXPECT_EQ(store->flush(), Status::kOk);
  EXPECT_EQ(store->write(4096, pattern(4096, 7)), Status::kOk);
  EXPECT_EQ(store->punch(0, 512), Status::kOk);
  EXPECT_EQ(store->write(4096, pattern(512, 9)), Status::kOk);
  serve();
  EXPECT_EQ(file_.bytes()[4096], 0) << "it has forgotten";
  EXPECT_EQ(read(*store, 4096, 512), pattern(512, 9));
  EXPECT_EQ(read(*store, 4608, 512), pattern(512, static_cast<uint8_t>(7 + 512)));
  EXPECT_EQ(read(*store, 0, 512), std::vector<uint8_t>(512));
  EXPECT_EQ(store->flush(), Status::kOk);
  EXPECT_EQ(file_.bytes()[4096], 9);
  EXPECT_EQ(file_.bytes()[0], 0);
}

TEST_F(NbdStoreTest, WithoutAServerRequestsFailUntilItIsBack) {
  const auto store = open();
  EXPECT_EQ(store->write(0, pattern(512)), Status::kOk);
  served_.reset();
  std::vector<uint8_t> bytes(512);
  EXPECT_EQ(store->read(0, bytes), Status::kIoError);
  EXPECT_EQ(store->flush(), Status::kIoError);
  serve();
  // It does not look for the server at once again.
  Status status = Status::kIoError;
  for (unsigned tries = 0; tries < 600 && status != Status::kOk; ++tries) {
    ::usleep(100'000);
    status = store->read(0, bytes);
  }
  EXPECT_EQ(status, Status::kOk);
  EXPECT_EQ(bytes, pattern(512));
  EXPECT_EQ(store->flush(), Status::kOk);
  EXPECT_EQ(file_.bytes()[1], 2);
}

TEST_F(NbdStoreTest, NoFlushSucceedsAfterTheServerSaidThatOneFailed) {
  const auto store = open();
  EXPECT_EQ(store->write(0, pattern(512)), Status::kOk);
  served_->store().flush_fails = true;
  EXPECT_EQ(store->flush(), Status::kLost);
  served_->store().flush_fails = false;
  EXPECT_EQ(store->flush(), Status::kLost);
}

TEST_F(NbdStoreTest, RefusesWhatIsNotThereOrNotForWriting) {
  const auto other = NbdStore::open(uri("other"), Access::kReadOnly);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("plc"), 0u);
  EXPECT_NE(other.error().message.find(folder_), std::string::npos) << other.error().message;
  serve(true);
  EXPECT_FALSE(NbdStore::open(uri(), Access::kReadWrite));
  EXPECT_TRUE(NbdStore::open(uri(), Access::kReadOnly));
  served_.reset();
  EXPECT_FALSE(NbdStore::open(uri(), Access::kReadOnly));
  EXPECT_FALSE(is_uri("/a/nbd://b"));
}

TEST_F(NbdStoreTest, IsADiskOfAMachine) {
  EXPECT_EQ(probe_format(uri()).value(), "raw");
  const auto opened = open_disk(uri(), "raw", Access::kReadWrite, HostCache::kUsed, 2);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->disk->geometry().size, kDiskBytes);
  // What it holds names no other files.
  MemoryStore image;
  ASSERT_TRUE(find_format("qcow2").value()->create(
      image, {.size = kDiskBytes, .backing_name = "base", .backing_format = "raw"}));
  std::ranges::copy(image.bytes(), file_.bytes().begin());
  serve();
  EXPECT_EQ(probe_format(uri()).value(), "qcow2");
  const auto chained = open_image(uri(), "qcow2", Access::kReadOnly);
  ASSERT_FALSE(chained);
  EXPECT_NE(chained.error().message.find("backing file 'base'"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::block::nbd

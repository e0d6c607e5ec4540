#include "block/store/file/file_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>
#include <tuple>

#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::block::file {
namespace {

// A file of the given size that is removed at the end; byte i holds a function of i.
class TemporaryFile {
 public:
  explicit TemporaryFile(size_t size) {
    std::string pattern = testing::TempDir() + "file-store-XXXXXX";
    const Fd file(::mkstemp(pattern.data()));
    path_ = pattern;
    std::vector<uint8_t> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = expected(i);
    EXPECT_TRUE(write_all(file.get(), bytes));
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string contents() const { return read_file(path_, 1 << 24).value(); }
  static uint8_t expected(size_t i) { return static_cast<uint8_t>(i / 512 + i * 7 + 1); }

 private:
  std::string path_;
};

Status run(Disk& disk, std::move_only_function<Request(Request::Completion)> make) {
  std::promise<Status> promise;
  disk.submit(make([&](Status status) { promise.set_value(status); }));
  return promise.get_future().get();
}
Status read(Disk& disk, uint64_t offset, std::vector<MutableByteSpan> buffers) {
  return run(disk, [&](auto completion) { return Request::read(offset, std::move(buffers), std::move(completion)); });
}
Status write(Disk& disk, uint64_t offset, std::vector<MutableByteSpan> buffers) {
  return run(disk, [&](auto completion) { return Request::write(offset, std::move(buffers), std::move(completion)); });
}
Status flush(Disk& disk) {
  return run(disk, [](auto completion) { return Request::flush(std::move(completion)); });
}
Status discard(Disk& disk, uint64_t offset, uint64_t size) {
  return run(disk, [&](auto completion) { return Request::discard(offset, size, std::move(completion)); });
}
Status write_zeroes(Disk& disk, uint64_t offset, uint64_t size, Unmap unmap) {
  return run(disk, [&](auto completion) { return Request::write_zeroes(offset, size, unmap, std::move(completion)); });
}

TEST(Request, AssertsWhenItDiesUnanswered) {
  EXPECT_DEATH({ Request::flush([](Status) {}); }, "died unanswered");
}

TEST(Request, IsCompletedOnceThroughEveryMove) {
  int completions = 0;
  Request first = Request::flush([&](Status status) { completions += status == Status::kOk ? 1 : 100; });
  Request second = std::move(first);
  Request third = Request::flush([](Status) {});
  third.complete(Status::kOk);
  third = std::move(second);
  third.complete(Status::kOk);
  EXPECT_EQ(completions, 1);
  EXPECT_DEATH(third.complete(Status::kOk), "completed once");
}

TEST(FileStore, ReadsAndWritesThroughAScatterList) {
  const TemporaryFile file(8192);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  EXPECT_EQ(store->geometry().size, 8192u);
  std::vector<uint8_t> a(100), b(0), c(924);
  EXPECT_EQ(read(*store, 512, {a, b, c}), Status::kOk);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], TemporaryFile::expected(512 + i));
  for (size_t i = 0; i < c.size(); ++i) ASSERT_EQ(c[i], TemporaryFile::expected(612 + i));
  std::fill(a.begin(), a.end(), uint8_t{0xAA});
  std::fill(c.begin(), c.end(), uint8_t{0xCC});
  EXPECT_EQ(write(*store, 1024, {a, b, c}), Status::kOk);
  EXPECT_EQ(flush(*store), Status::kOk);
  const std::string contents = file.contents();
  EXPECT_EQ(contents.substr(1024, 100), std::string(100, '\xAA'));
  EXPECT_EQ(contents.substr(1124, 924), std::string(924, '\xCC'));
  EXPECT_EQ(static_cast<uint8_t>(contents[2048]), TemporaryFile::expected(2048));
}

TEST(FileStore, TransfersMorePiecesThanOneSystemCallTakes) {
  constexpr size_t kSize = size_t{512} * 1024;
  const TemporaryFile file(kSize);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  std::vector<uint8_t> bytes(kSize);
  std::vector<MutableByteSpan> pieces;
  pieces.reserve(1024);
  for (size_t i = 0; i < 1024; ++i) pieces.push_back(MutableByteSpan(bytes).subspan(i * 512, 512));
  EXPECT_EQ(read(*store, 0, pieces), Status::kOk);
  for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], TemporaryFile::expected(i));
}

TEST(FileStore, RefusesWhatDoesNotFitTheDisk) {
  const TemporaryFile file(8192);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  std::vector<uint8_t> bytes(1024);
  EXPECT_EQ(read(*store, 8192 - 512, {bytes}), Status::kOutOfRange);
  EXPECT_EQ(read(*store, UINT64_MAX - 511, {bytes}), Status::kOutOfRange);
  EXPECT_EQ(read(*store, 100, {bytes}), Status::kOutOfRange);
  EXPECT_EQ(write(*store, 0, {MutableByteSpan(bytes).first(511)}), Status::kOutOfRange);
  EXPECT_EQ(discard(*store, 0, UINT64_MAX & ~511ull), Status::kOutOfRange);
}

TEST(FileStore, WritesNothingWhenReadOnly) {
  const TemporaryFile file(4096);
  ASSERT_EQ(::chmod(file.path().c_str(), 0444), 0);
  const auto store = FileStore::open(file.path(), Access::kReadOnly).value();
  std::vector<uint8_t> bytes(512);
  EXPECT_TRUE(store->geometry().read_only);
  EXPECT_EQ(write(*store, 0, {bytes}), Status::kReadOnly);
  EXPECT_EQ(discard(*store, 0, 512), Status::kReadOnly);
  EXPECT_EQ(write_zeroes(*store, 0, 512, Unmap::kNo), Status::kReadOnly);
  EXPECT_EQ(flush(*store), Status::kOk);
  EXPECT_EQ(read(*store, 0, {bytes}), Status::kOk);
}

TEST(FileStore, FillsUpAnOddLastSector) {
  const TemporaryFile file(1000);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  EXPECT_EQ(store->geometry().size, 1024u);
  std::vector<uint8_t> bytes(512, 0xFF);
  EXPECT_EQ(read(*store, 512, {bytes}), Status::kOk);
  EXPECT_EQ(bytes[487], TemporaryFile::expected(999));
  EXPECT_EQ(bytes[488], 0);
  EXPECT_EQ(file.contents().size(), 1000u);
  EXPECT_EQ(write(*store, 512, {bytes}), Status::kOk);
  EXPECT_EQ(file.contents().size(), 1024u);
}

TEST(FileStore, ZeroesExactlyTheRange) {
  for (const Unmap unmap : {Unmap::kNo, Unmap::kYes}) {
    const TemporaryFile file(65536);
    const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
    EXPECT_EQ(write_zeroes(*store, 4096 + 512, 16384, unmap), Status::kOk);
    const std::string contents = file.contents();
    ASSERT_EQ(contents.size(), 65536u);
    for (size_t i = 0; i < contents.size(); ++i) {
      const bool inside = i >= 4608 && i < 4608 + 16384;
      ASSERT_EQ(static_cast<uint8_t>(contents[i]), inside ? 0 : TemporaryFile::expected(i)) << i;
    }
  }
}

TEST(FileStore, GivesStorageBackWhenDiscarding) {
  const TemporaryFile file(1 << 20);
  const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
  ASSERT_EQ(flush(*store), Status::kOk);
  EXPECT_EQ(discard(*store, 0, 1 << 20), Status::kOk);
  EXPECT_EQ(file.contents().size(), 1u << 20);
}

TEST(FileStore, LocksAgainstASecondWriterButSharesReading) {
  const TemporaryFile file(4096);
  {
    const auto writer = FileStore::open(file.path(), Access::kReadWrite);
    ASSERT_TRUE(writer);
    const auto second = FileStore::open(file.path(), Access::kReadWrite);
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message.find(file.path()), std::string::npos);
    EXPECT_NE(second.error().message.find("in use"), std::string::npos);
    EXPECT_FALSE(FileStore::open(file.path(), Access::kReadOnly));
  }
  const auto reader = FileStore::open(file.path(), Access::kReadOnly);
  ASSERT_TRUE(reader);
  EXPECT_TRUE(FileStore::open(file.path(), Access::kReadOnly));
  EXPECT_FALSE(FileStore::open(file.path(), Access::kReadWrite));
}

TEST(FileStore, NamesTheFileThatCannotBeADisk) {
  const auto missing = FileStore::open("/nonexistent/disk.img", Access::kReadOnly);
  EXPECT_EQ(missing.error().message, "open '/nonexistent/disk.img': No such file or directory");
  EXPECT_FALSE(FileStore::open("/", Access::kReadOnly));
  EXPECT_EQ(FileStore::open("/dev/null", Access::kReadOnly).error().message,
            "open '/dev/null': neither a regular file nor a block device");
  const TemporaryFile empty(0);
  EXPECT_NE(FileStore::open(empty.path(), Access::kReadOnly).error().message.find("is empty"), std::string::npos);
}

// Memory that direct access takes.
struct AlignedBytes {
  explicit AlignedBytes(size_t size)
      : memory(static_cast<uint8_t*>(std::aligned_alloc(4096, size)), &std::free), bytes(memory.get(), size) {}
  std::unique_ptr<uint8_t, void (*)(void*)> memory;
  MutableByteSpan bytes;
};

TEST(FileStore, TransfersThroughRegisteredMemoryAndBesideIt) {
  for (const HostCache cache : {HostCache::kUsed, HostCache::kBypassedIfPossible}) {
    const TemporaryFile file(1 << 20);
    const AlignedBytes known(256 << 10), other(64 << 10);
    const auto store = FileStore::open(file.path(), Access::kReadWrite, 4, cache).value();
    const std::array<MutableByteSpan, 2> memory{known.bytes.first(128 << 10), known.bytes.subspan(128 << 10)};
    if (const auto registered = store->register_memory(memory); !registered) {
      GTEST_SKIP() << registered.error().message;
    }
    const auto transfer = [&](bool reads, uint64_t offset, std::vector<MutableByteSpan> pieces) {
      std::promise<Status> answer;
      const auto done = [&](Status status) { answer.set_value(status); };
      store->submit(reads ? Request::read(offset, std::move(pieces), done)
                          : Request::write(offset, std::move(pieces), done));
      return answer.get_future().get();
    };
    // Within one buffer, over the border of two, in pieces, and elsewhere.
    const std::vector<std::vector<MutableByteSpan>> places{
        {known.bytes.subspan(8192, 16384)},
        {known.bytes.subspan((128 << 10) - 8192, 16384)},
        {known.bytes.first(8192), known.bytes.subspan(200 << 10, 8192)},
        {other.bytes.first(16384)},
    };
    for (size_t i = 0; i < places.size(); ++i) {
      for (const MutableByteSpan& piece : places[i]) std::ranges::fill(piece, static_cast<uint8_t>(0xA0 + i));
      ASSERT_EQ(transfer(false, i * 65536, places[i]), Status::kOk);
    }
    for (size_t i = 0; i < places.size(); ++i) {
      for (const MutableByteSpan& piece : places[i]) std::ranges::fill(piece, uint8_t{0});
      ASSERT_EQ(transfer(true, i * 65536, places[i]), Status::kOk);
      for (const MutableByteSpan& piece : places[i]) {
        EXPECT_TRUE(std::ranges::all_of(piece, [&](uint8_t byte) { return byte == 0xA0 + i; })) << i;
      }
    }
  }
}

class FileStoreWays : public testing::TestWithParam<std::tuple<FileStore::Driver, HostCache>> {
 protected:
  [[nodiscard]] static std::unique_ptr<FileStore> open(const TemporaryFile& file) {
    return FileStore::open(file.path(), Access::kReadWrite, 4, std::get<1>(GetParam()), std::get<0>(GetParam()))
        .value();
  }
};
INSTANTIATE_TEST_SUITE_P(All, FileStoreWays,
                         testing::Combine(testing::Values(FileStore::Driver::kRingIfPossible,
                                                          FileStore::Driver::kThreads),
                                          testing::Values(HostCache::kUsed, HostCache::kBypassedIfPossible)));

// Whichever way each takes, a later request sees what an earlier one wrote.
TEST_P(FileStoreWays, AlignedAndOddRequestsSeeEachOthersWrites) {
  const TemporaryFile file(1 << 20);
  const auto store = open(file);
  std::vector<uint8_t> expected(1 << 20);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = TemporaryFile::expected(i);
  AlignedBytes aligned(65536);
  std::vector<uint8_t> odd(65536 + 1);
  uint32_t seed = 1;
  const auto random = [&](uint32_t limit) { return (seed = seed * 1664525 + 1013904223) >> 8 & (limit - 1); };
  for (int round = 0; round < 400; ++round) {
    const uint64_t unit = random(2) == 0 ? 512 : 4096, size = unit * (1 + random(8));
    const uint64_t offset = unit * random(static_cast<uint32_t>((1 << 20) / unit / 2));
    const MutableByteSpan bytes = random(2) == 0 ? aligned.bytes.first(size) : MutableByteSpan(odd).subspan(1, size);
    if (random(2) == 0) {
      std::ranges::fill(bytes, static_cast<uint8_t>(round));
      ASSERT_EQ(write(*store, offset, {bytes}), Status::kOk);
      std::fill_n(expected.begin() + static_cast<ptrdiff_t>(offset), size, static_cast<uint8_t>(round));
    } else {
      ASSERT_EQ(read(*store, offset, {bytes.first(size / 2), bytes.subspan(size / 2)}), Status::kOk);
      ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin() + static_cast<ptrdiff_t>(offset))) << round;
    }
  }
  EXPECT_EQ(flush(*store), Status::kOk);
  const std::string contents = file.contents();
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), reinterpret_cast<const uint8_t*>(contents.data())));
}

TEST_P(FileStoreWays, AnOddLastSectorIsFilledUp) {
  const TemporaryFile file(4096 + 1000);
  const auto store = open(file);
  AlignedBytes aligned(8192);
  std::ranges::fill(aligned.bytes, uint8_t{0xFF});
  EXPECT_EQ(read(*store, 0, {aligned.bytes.first(4096 + 1024)}), Status::kOk);
  EXPECT_EQ(aligned.bytes[4096 + 999], TemporaryFile::expected(4096 + 999));
  EXPECT_EQ(aligned.bytes[4096 + 1000], 0);
}

// More than the ring holds, and each answer brings the next request.
TEST_P(FileStoreWays, AnswersRequestsThatAreMadeInAnswers) {
  const TemporaryFile file(1 << 20);
  AlignedBytes aligned(size_t{4096} * 200);
  constexpr int kCount = 2000;
  std::atomic<int> begun{0}, good{0}, ended{0};
  std::promise<void> all;
  {
    const auto store = open(file);
    std::function<void(size_t)> next = [&](size_t lane) {
      const int number = begun++;
      if (number >= kCount) {
        if (++ended == 200) all.set_value();
        return;
      }
      store->submit(Request::read(static_cast<uint64_t>(number % 256) * 4096,
                                  {aligned.bytes.subspan(lane * 4096, 4096)}, [&, lane](Status status) {
                                    good += status == Status::kOk;
                                    next(lane);
                                  }));
    };
    for (size_t lane = 0; lane < 200; ++lane) next(lane);
    all.get_future().wait();
  }
  EXPECT_EQ(good.load(), kCount);
}

// ---- On the thread that submits (OnTheSpot), or on one of the store's ----

// The first requests of a store: what comes after one that took long is left to the threads.
class FileStoreOnTheSpot : public testing::TestWithParam<FileStore::Driver> {
 protected:
  using Make = Request (*)(MutableByteSpan, Request::Completion);
  static Request read(MutableByteSpan bytes, Request::Completion done) {
    return Request::read(0, {bytes}, std::move(done));
  }
  static Request write(MutableByteSpan bytes, Request::Completion done) {
    return Request::write(0, {bytes}, std::move(done));
  }
  [[nodiscard]] std::unique_ptr<FileStore> open() const {
    return FileStore::open(file_.path(), Access::kReadWrite, 4, HostCache::kUsed, GetParam()).value();
  }
  // Whether a request is answered on this thread; returns when it is.
  static bool here(Disk& disk, Make make, uint64_t size) {
    std::vector<uint8_t> bytes(size, 0xA5);
    std::promise<std::thread::id> by;
    disk.submit(make(bytes, [&](Status status) {
      EXPECT_EQ(status, Status::kOk);
      by.set_value(std::this_thread::get_id());
    }));
    return by.get_future().get() == std::this_thread::get_id();
  }
  const TemporaryFile file_{1 << 20};
};
INSTANTIATE_TEST_SUITE_P(Drivers, FileStoreOnTheSpot,
                         testing::Values(FileStore::Driver::kThreads, FileStore::Driver::kRingIfPossible));

TEST_P(FileStoreOnTheSpot, CarriesOutASmallWriteWhenNothingElseIsUnderWay) {
  EXPECT_TRUE(here(*open(), write, OnTheSpot::kLargest));
  EXPECT_EQ(static_cast<uint8_t>(file_.contents()[OnTheSpot::kLargest - 1]), 0xA5);
  if (GetParam() == FileStore::Driver::kThreads) {
    EXPECT_TRUE(here(*open(), read, 4096));
  }
}

TEST_P(FileStoreOnTheSpot, LeavesWhatMayTakeLongToOthers) {
  const auto store = open();
  EXPECT_FALSE(here(*store, write, OnTheSpot::kLargest + 512));
  EXPECT_FALSE(
      here(*store, [](MutableByteSpan, Request::Completion done) { return Request::flush(std::move(done)); }, 0));
  EXPECT_FALSE(here(
      *store, [](MutableByteSpan, Request::Completion done) { return Request::discard(0, 512, std::move(done)); }, 0));
}

TEST_P(FileStoreOnTheSpot, NeverWaitsBehindAnotherRequest) {
  const auto store = open();
  std::vector<uint8_t> bytes(OnTheSpot::kLargest + 512);
  std::promise<void> go, answered;
  store->submit(Request::write(0, {bytes}, [&answered, gone = go.get_future().share()](Status) {
    answered.set_value();
    gone.wait();
  }));
  answered.get_future().wait();
  // Its answer is still being given.
  EXPECT_FALSE(here(*store, write, 4096));
  go.set_value();
}

TEST_P(FileStoreOnTheSpot, GoesNoDeeperWithRequestsThatAreMadeInAnswers) {
  auto store = open();
  std::vector<uint8_t> bytes(512);
  constexpr int kCount = 20000;
  int answers = 0;
  size_t deepest = 0, depth = 0;
  std::promise<void> all;
  Mutex mutex;
  std::function<void()> next = [&] {
    store->submit(Request::write(0, {bytes}, [&](Status) {
      {
        const LockGuard lock(mutex);
        deepest = std::max(deepest, ++depth);
        if (++answers == kCount) return all.set_value();
      }
      next();
      const LockGuard lock(mutex);
      --depth;
    }));
  };
  next();
  all.get_future().wait();
  store.reset();
  // One on each thread.
  EXPECT_LE(deepest, 5u);
}

TEST(FileStore, CompletesEverythingThatWasSubmittedBeforeItEnds) {
  const TemporaryFile file(1 << 20);
  std::atomic<int> completions{0};
  std::vector<std::vector<uint8_t>> buffers(64, std::vector<uint8_t>(4096));
  {
    const auto store = FileStore::open(file.path(), Access::kReadWrite).value();
    for (size_t i = 0; i < buffers.size(); ++i) {
      store->submit(
          Request::read(i * 4096, {buffers[i]}, [&](Status status) { completions += status == Status::kOk; }));
    }
  }
  EXPECT_EQ(completions.load(), 64);
}

}  // namespace
}  // namespace bulkhead::block::file

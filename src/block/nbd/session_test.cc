// A client that speaks byte by byte, as the protocol's text has it, with a session on the other end of a socket pair.
#include "block/nbd/session.h"

#include <numeric>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/format/image_disk.h"
#include "block/nbd/server.h"
#include "block/testing/shared_store.h"

namespace bulkhead::block::nbd {
namespace {

constexpr uint64_t kDiskBytes = uint64_t{1} << 20;
constexpr int kPatience_ms = 60'000;

struct OptionAnswer {
  uint32_t type = 0;
  std::vector<uint8_t> data;
};

// Of a structured reply.
struct ChunkAnswer {
  uint16_t flags = 0, type = 0;
  uint64_t cookie = 0;
  std::vector<uint8_t> data;
};

template <typename T>
T number(ByteSpan bytes, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(uint64_t{value} << 8 | bytes[at + i]);
  return value;
}

class Client {
 public:
  explicit Client(const Export& served) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    mine_ = Fd(ends[0]);
    channel_ = std::make_unique<SocketChannel>(Fd(ends[1]));
    session_ = std::make_unique<Session>(*channel_, served);
    thread_ = Thread("session", [this] {
      session_->run();
      // As a server does, whose client sees then that it is alone.
      channel_.reset();
    });
  }
  ~Client() {
    hang_up();
    thread_.join();
  }
  void hang_up() { mine_.reset(); }

  void say(const std::vector<uint8_t>& bytes) {
    ASSERT_EQ(::send(mine_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Shorter when the session ends.
  std::vector<uint8_t> hear(size_t size) {
    std::vector<uint8_t> bytes(size);
    size_t there = 0;
    while (there < size) {
      pollfd entry{.fd = mine_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, kPatience_ms) <= 0) {
        ADD_FAILURE() << "no answer";
        break;
      }
      const ssize_t count = ::recv(mine_.get(), &bytes[there], size - there, 0);
      if (count <= 0) break;
      there += static_cast<size_t>(count);
    }
    bytes.resize(there);
    return bytes;
  }
  bool is_left() { return hear(1).empty(); }

  void greet(uint32_t flags = kFixedNewstyle | kNoZeroes) {
    const auto greeting = hear(18);
    ASSERT_EQ(greeting.size(), 18u);
    EXPECT_EQ(number<uint64_t>(greeting, 0), kServerMagic);
    EXPECT_EQ(number<uint64_t>(greeting, 8), kOptionMagic);
    EXPECT_EQ(number<uint16_t>(greeting, 16), 3);
    say(Writer().put(flags).take());
  }
  void ask(Option option, const std::vector<uint8_t>& data = {}) {
    say(Writer()
            .put(kOptionMagic)
            .put(static_cast<uint32_t>(option))
            .put(static_cast<uint32_t>(data.size()))
            .put(data)
            .take());
  }
  // Up to the one that ends them.
  std::vector<OptionAnswer> answers(Option option) {
    std::vector<OptionAnswer> all;
    do {
      const auto head = hear(20);
      if (head.size() != 20) break;
      EXPECT_EQ(number<uint64_t>(head, 0), kOptionReplyMagic);
      EXPECT_EQ(number<uint32_t>(head, 8), static_cast<uint32_t>(option));
      all.push_back({number<uint32_t>(head, 12), hear(number<uint32_t>(head, 16))});
    } while (all.back().type != static_cast<uint32_t>(OptionReply::kAck) && all.back().type < 0x80000000);
    return all;
  }
  OptionReply option(Option option, const std::vector<uint8_t>& data = {}) {
    ask(option, data);
    const auto all = answers(option);
    return all.empty() ? OptionReply::kAck : OptionReply{all.back().type};
  }
  static std::vector<uint8_t> info(std::string_view name, std::initializer_list<uint16_t> wanted = {}) {
    Writer writer;
    writer.put(static_cast<uint32_t>(name.size())).put(name).put(static_cast<uint16_t>(wanted.size()));
    for (const uint16_t one : wanted) writer.put(one);
    return writer.take();
  }
  static std::vector<uint8_t> contexts(std::string_view name, std::initializer_list<std::string_view> queries) {
    Writer writer;
    writer.put(static_cast<uint32_t>(name.size())).put(name).put(static_cast<uint32_t>(queries.size()));
    for (const std::string_view one : queries) writer.put(static_cast<uint32_t>(one.size())).put(one);
    return writer.take();
  }
  void go(bool structured = false) {
    greet();
    if (structured) {
      EXPECT_EQ(option(Option::kStructuredReply), OptionReply::kAck);
      EXPECT_EQ(option(Option::kSetMetaContext, contexts("", {"base:allocation"})), OptionReply::kAck);
    }
    EXPECT_EQ(option(Option::kGo, info("")), OptionReply::kAck);
  }

  static std::vector<uint8_t> request(Command command, uint64_t offset, uint32_t size, uint16_t flags = 0,
                                      uint64_t cookie = 7) {
    return Writer()
        .put(kRequestMagic)
        .put(flags)
        .put(static_cast<uint16_t>(command))
        .put(cookie)
        .put(offset)
        .put(size)
        .take();
  }
  ErrorNumber simple(uint64_t cookie = 7) {
    const auto reply = hear(16);
    if (reply.size() != 16) return ErrorNumber{UINT32_MAX};
    EXPECT_EQ(number<uint32_t>(reply, 0), kSimpleReplyMagic);
    EXPECT_EQ(number<uint64_t>(reply, 8), cookie);
    return ErrorNumber{number<uint32_t>(reply, 4)};
  }
  ErrorNumber run(Command command, uint64_t offset, uint32_t size, uint16_t flags = 0,
                  const std::vector<uint8_t>& data = {}) {
    say(Writer().put(request(command, offset, size, flags)).put(data).take());
    return simple();
  }
  ChunkAnswer chunk() {
    const auto head = hear(20);
    if (head.size() != 20) return {};
    EXPECT_EQ(number<uint32_t>(head, 0), kStructuredReplyMagic);
    return {number<uint16_t>(head, 4), number<uint16_t>(head, 6), number<uint64_t>(head, 8),
            hear(number<uint32_t>(head, 16))};
  }

 private:
  Fd mine_;
  std::unique_ptr<SocketChannel> channel_;
  std::unique_ptr<Session> session_;
  Thread thread_;
};

// An image in memory that counts flushes.
class CountingStore final : public Store {
 public:
  CountingStore(MemoryStore& file, std::atomic<int>& flushes) : store_(file), flushes_(flushes) {}
  [[nodiscard]] const std::string& name() const override { return store_.name(); }
  [[nodiscard]] Result<uint64_t> size() override { return store_.size(); }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override { return store_.read(offset, bytes); }
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override { return store_.write(offset, bytes); }
  [[nodiscard]] Status flush() override {
    ++flushes_;
    return store_.flush();
  }
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override { return store_.punch(offset, size); }
  [[nodiscard]] Status truncate(uint64_t size) override { return store_.truncate(size); }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override { return store_.extent(offset); }

 private:
  testing::SharedStore store_;
  std::atomic<int>& flushes_;
};

class Nbd : public ::testing::Test {
 protected:
  explicit Nbd(const std::string& format = "qcow2") {
    const Format* const found = find_format(format).value();
    EXPECT_TRUE(found->create(file_, {.size = kDiskBytes}));
    image_ =
        found->open(std::make_unique<CountingStore>(file_, flushes_), Access::kReadWrite, ImageOpener("/")).value();
    Image& behind = *image_;
    disk_ = std::make_unique<ImageDisk>(std::move(image_), 2);
    served_ = std::make_unique<Export>(Export{.name = "plc", .disk = *disk_, .image = behind});
  }
  MemoryStore file_;
  std::atomic<int> flushes_{0};
  std::unique_ptr<Image> image_;
  std::unique_ptr<ImageDisk> disk_;
  std::unique_ptr<Export> served_;
};

std::vector<uint8_t> pattern(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{1});
  return bytes;
}

TEST_F(Nbd, SaysWhatItServes) {
  Client client(*served_);
  client.greet();
  client.ask(Option::kList);
  auto all = client.answers(Option::kList);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].data, (std::vector<uint8_t>{0, 0, 0, 3, 'p', 'l', 'c'}));
  client.ask(Option::kInfo, Client::info("plc", {3, 1, 99}));
  all = client.answers(Option::kInfo);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(number<uint64_t>(all[0].data, 2), kDiskBytes);
  EXPECT_EQ(number<uint16_t>(all[0].data, 10),
            kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kCanMultiConn);
  EXPECT_EQ(all[1].data, (std::vector<uint8_t>{0, 1, 'p', 'l', 'c'}));
  EXPECT_EQ(number<uint16_t>(all[2].data, 0), 3);
  EXPECT_EQ(number<uint32_t>(all[2].data, 2), 512u);
  EXPECT_EQ(number<uint32_t>(all[2].data, 10), kMaximumTransfer);
  EXPECT_EQ(client.option(Option::kAbort), OptionReply::kAck);
  EXPECT_TRUE(client.is_left());
}

TEST_F(Nbd, RefusesOptionsThatMakeNoSenseAndGoesOn) {
  Client client(*served_);
  client.greet();
  EXPECT_EQ(client.option(Option{77}, {1, 2, 3}), OptionReply::kUnsupported);
  EXPECT_EQ(client.option(Option::kStartTls), OptionReply::kUnsupported);
  EXPECT_EQ(client.option(Option::kGo, Client::info("other")), OptionReply::kUnknown);
  EXPECT_EQ(client.option(Option::kGo, {0, 0, 0, 9, 'p'}), OptionReply::kInvalid);
  EXPECT_EQ(client.option(Option::kGo, {0, 0, 0, 0, 0, 2, 0, 3}), OptionReply::kInvalid) << "one of two is missing";
  EXPECT_EQ(client.option(Option::kList, {1}), OptionReply::kInvalid);
  EXPECT_EQ(client.option(Option::kSetMetaContext, Client::contexts("", {"base:allocation"})), OptionReply::kInvalid)
      << "before structured replies";
  EXPECT_EQ(client.option(Option::kStructuredReply), OptionReply::kAck);
  EXPECT_EQ(client.option(Option::kSetMetaContext, Client::contexts("other", {})), OptionReply::kUnknown);
  EXPECT_EQ(client.option(Option::kSetMetaContext, {0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF}), OptionReply::kInvalid);
  EXPECT_EQ(client.option(Option::kGo, Client::info("plc")), OptionReply::kAck);
}

TEST_F(Nbd, LeavesWhoBreaksTheProtocol) {
  {
    Client client(*served_);
    client.greet(8);
    EXPECT_TRUE(client.is_left()) << "flags that nobody offered";
  }
  {
    Client client(*served_);
    client.greet();
    client.say(std::vector<uint8_t>(16, 0xEE));
    EXPECT_TRUE(client.is_left());
  }
  {
    Client client(*served_);
    client.greet();
    client.say(Writer().put(kOptionMagic).put(uint32_t{7}).put(kMaximumOptionBytes + 1).take());
    EXPECT_EQ(client.answers(Option::kGo).front().type, static_cast<uint32_t>(OptionReply::kTooBig));
    EXPECT_TRUE(client.is_left());
  }
  {
    Client client(*served_);
    client.greet();
    for (unsigned i = 0; i < kMaximumOptions; ++i) EXPECT_EQ(client.option(Option::kList), OptionReply::kAck);
    EXPECT_TRUE(client.is_left()) << "without an end";
  }
  {
    Client client(*served_);
    client.go();
    client.say(std::vector<uint8_t>(kRequestBytes, 0xEE));
    EXPECT_TRUE(client.is_left());
  }
  {
    Client client(*served_);
    client.go();
    client.say(Client::request(Command::kWrite, 0, kMaximumTransfer + 512));
    EXPECT_TRUE(client.is_left());
  }
  Client client(*served_);
  client.greet();
  client.ask(Option::kExportName, {'x'});
  EXPECT_TRUE(client.is_left());
}

TEST_F(Nbd, TheOldWayInIsThereToo) {
  Client client(*served_);
  client.greet(kFixedNewstyle);
  client.ask(Option::kExportName, {'p', 'l', 'c'});
  const auto reply = client.hear(8 + 2 + 124);
  ASSERT_EQ(reply.size(), 134u);
  EXPECT_EQ(number<uint64_t>(reply, 0), kDiskBytes);
  EXPECT_EQ(client.run(Command::kFlush, 0, 0), ErrorNumber::kNone);
}

TEST_F(Nbd, WritesAndReadsBack) {
  Client client(*served_);
  client.go();
  const auto data = pattern(4096);
  EXPECT_EQ(client.run(Command::kWrite, 8192, 4096, 0, data), ErrorNumber::kNone);
  EXPECT_EQ(client.run(Command::kRead, 8192, 4096), ErrorNumber::kNone);
  EXPECT_EQ(client.hear(4096), data);
  EXPECT_EQ(client.run(Command::kTrim, 8192, 512), ErrorNumber::kNone);
  EXPECT_EQ(client.run(Command::kWriteZeroes, 8192, 1024, kFlagNoHole), ErrorNumber::kNone);
  EXPECT_EQ(client.run(Command::kRead, 8192, 2048), ErrorNumber::kNone);
  auto found = client.hear(2048);
  EXPECT_EQ(std::count(found.begin(), found.begin() + 1024, 0), 1024);
  EXPECT_TRUE(std::equal(found.begin() + 1024, found.end(), data.begin() + 1024));
}

TEST_F(Nbd, AFlushAndForceUnitAccessMakeWritesSafe) {
  Client client(*served_);
  client.go();
  EXPECT_EQ(client.run(Command::kWrite, 0, 512, 0, pattern(512)), ErrorNumber::kNone);
  const int before = flushes_;
  EXPECT_EQ(client.run(Command::kFlush, 0, 0), ErrorNumber::kNone);
  const int after = flushes_;
  EXPECT_GT(after, before);
  EXPECT_EQ(client.run(Command::kWrite, 0, 512, kFlagFua, pattern(512)), ErrorNumber::kNone);
  EXPECT_GT(flushes_, after);
}

TEST_F(Nbd, ARequestThatMakesNoSenseGetsAnErrorAndTheNextOneIsCarriedOut) {
  Client client(*served_);
  client.go();
  const auto data = pattern(512);
  EXPECT_EQ(client.run(Command::kRead, kDiskBytes, 512), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command::kRead, UINT64_MAX - 511, 512), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command::kRead, 1, 512), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command::kRead, 0, 0), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command::kRead, 0, kMaximumTransfer + 512), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command::kRead, 0, 512, 16), ErrorNumber::kInvalid) << "a flag that was not offered";
  EXPECT_EQ(client.run(Command::kWrite, kDiskBytes, 512, 0, data), ErrorNumber::kNoSpace);
  EXPECT_EQ(client.run(Command::kWriteZeroes, kDiskBytes - 512, 1024), ErrorNumber::kNoSpace);
  EXPECT_EQ(client.run(Command::kBlockStatus, 0, 512), ErrorNumber::kInvalid) << "that was not negotiated";
  EXPECT_EQ(client.run(Command::kFlush, 512, 0), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command{5}, 0, 512), ErrorNumber::kInvalid);
  EXPECT_EQ(client.run(Command::kWrite, 0, 512, 0, data), ErrorNumber::kNone);
}

TEST_F(Nbd, AReadOnlyExportIsNotChanged) {
  served_->read_only = true;
  Client client(*served_);
  client.go();
  EXPECT_EQ(client.run(Command::kWrite, 0, 512, 0, pattern(512)), ErrorNumber::kPermission);
  EXPECT_EQ(client.run(Command::kTrim, 0, 512), ErrorNumber::kPermission);
  EXPECT_EQ(client.run(Command::kWriteZeroes, 0, 512), ErrorNumber::kPermission);
  EXPECT_EQ(client.run(Command::kFlush, 0, 0), ErrorNumber::kNone);
  EXPECT_EQ(client.run(Command::kRead, 0, 512), ErrorNumber::kNone);
  EXPECT_EQ(client.hear(512), std::vector<uint8_t>(512));
}

TEST_F(Nbd, StructuredRepliesHoldDataErrorsAndWhereDataIs) {
  Client client(*served_);
  client.go(true);
  const auto data = pattern(65536);
  EXPECT_EQ(client.run(Command::kWrite, 65536, 65536, 0, data), ErrorNumber::kNone);
  client.say(Client::request(Command::kRead, 65536, 512, kFlagDoNotFragment));
  ChunkAnswer chunk = client.chunk();
  EXPECT_EQ(chunk.flags, kReplyDone);
  EXPECT_EQ(chunk.type, static_cast<uint16_t>(Chunk::kData));
  ASSERT_EQ(chunk.data.size(), 520u);
  EXPECT_EQ(number<uint64_t>(chunk.data, 0), 65536u);
  EXPECT_TRUE(std::equal(chunk.data.begin() + 8, chunk.data.end(), data.begin()));
  client.say(Client::request(Command::kRead, kDiskBytes, 512));
  chunk = client.chunk();
  EXPECT_EQ(chunk.type, static_cast<uint16_t>(Chunk::kError));
  EXPECT_EQ(chunk.data, (std::vector<uint8_t>{0, 0, 0, 22, 0, 0}));
  client.say(Client::request(Command::kBlockStatus, 512, kDiskBytes - 512));
  chunk = client.chunk();
  EXPECT_EQ(chunk.type, static_cast<uint16_t>(Chunk::kBlockStatus));
  const auto expected = Writer()
                            .put(kAllocationId)
                            .put(uint32_t{65536 - 512})
                            .put(kStateHole | kStateZero)
                            .put(uint32_t{65536})
                            .put(uint32_t{0})
                            .put(static_cast<uint32_t>(kDiskBytes - 131072))
                            .put(kStateHole | kStateZero)
                            .take();
  EXPECT_EQ(chunk.data, expected);
  client.say(Client::request(Command::kBlockStatus, 0, kDiskBytes, kFlagOneExtent));
  EXPECT_EQ(client.chunk().data.size(), 12u);
}

TEST_F(Nbd, ContextsAreThoseOfTheExportTheyWereAskedFor) {
  Client client(*served_);
  client.greet();
  EXPECT_EQ(client.option(Option::kStructuredReply), OptionReply::kAck);
  client.ask(Option::kListMetaContext, Client::contexts("plc", {"base:"}));
  EXPECT_EQ(client.answers(Option::kListMetaContext).size(), 2u);
  client.ask(Option::kSetMetaContext, Client::contexts("plc", {"base:", "qemu:dirty"}));
  EXPECT_EQ(client.answers(Option::kSetMetaContext).size(), 1u) << "only whole names set something";
  EXPECT_EQ(client.option(Option::kSetMetaContext, Client::contexts("plc", {"base:allocation"})), OptionReply::kAck);
  EXPECT_EQ(client.option(Option::kGo, Client::info("")), OptionReply::kAck);
  client.say(Client::request(Command::kBlockStatus, 0, 512));
  EXPECT_EQ(client.chunk().type, static_cast<uint16_t>(Chunk::kError));
}

TEST_F(Nbd, ManyRequestsAtATimeAreAllAnswered) {
  Client client(*served_);
  client.go();
  constexpr unsigned kCount = 4 * Session::kMaximumRequests;
  Writer writer;
  for (uint64_t i = 0; i < kCount; ++i) {
    writer.put(Client::request(Command::kWrite, i % 64 * 4096, 4096, 0, i)).put(std::vector<uint8_t>(4096, 9));
  }
  client.say(writer.take());
  std::vector<unsigned> seen(kCount);
  for (unsigned i = 0; i < kCount; ++i) {
    const auto reply = client.hear(16);
    ASSERT_EQ(reply.size(), 16u);
    EXPECT_EQ(number<uint32_t>(reply, 4), 0u);
    ++seen.at(number<uint64_t>(reply, 8));
  }
  EXPECT_EQ(seen, std::vector<unsigned>(kCount, 1));
}

TEST_F(Nbd, AClientThatGoesInTheMiddleLeavesNothingBehind) {
  {
    Client client(*served_);
    client.go();
    for (unsigned i = 0; i < 32; ++i) client.say(Client::request(Command::kRead, 0, 524288));
    client.say(Client::request(Command::kWrite, 0, 65536));
    client.hang_up();
  }
  Client client(*served_);
  client.go();
  EXPECT_EQ(client.run(Command::kRead, 0, 512), ErrorNumber::kNone);
}

}  // namespace
}  // namespace bulkhead::block::nbd

// One client of a disk that is served over NBD: what it asks for is negotiated, then its requests go to the disk,
// several at a time, and are answered in whatever order the disk completes them.
//
//   channel -> run(): parse, check -> Disk -> completion -> answers -> a thread that sends them -> channel
//
// A client's requests and their buffers are limited until their answers have been sent, so one that does not read what
// it asked for stops itself and nobody else. One that breaks the protocol loses its connection; a request that makes no
// sense gets an error. Source: the NBD project's doc/proto.md.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "block/disk.h"
#include "block/format/image.h"
#include "block/nbd/protocol.h"
#include "support/os/mutex.h"

namespace bulkhead::block::nbd {

// The way to a client. Both fail when the client is gone or takes too long, and from then on.
class Channel {
 public:
  // For what a reader waits: in the negotiation, for the next request whenever that comes, or for the rest of one.
  enum class Wait : uint8_t { kNegotiation, kRequest, kRest };
  virtual ~Channel() = default;
  // All of the bytes. From one thread.
  [[nodiscard]] virtual bool read(MutableByteSpan bytes, Wait wait) = 0;
  // All of both. From one thread, which may be another.
  [[nodiscard]] virtual bool write(ByteSpan head, ByteSpan tail) = 0;
};

// What is served. A client that names no export gets this one too.
struct Export {
  std::string name;
  Disk& disk;    // which may be used by several sessions; a flush of one makes safe what all have written
  Image& image;  // behind it, to say where data is
  bool read_only = false;
};

class Session {
 public:
  static constexpr unsigned kMaximumRequests = 64;               // under way or not yet answered
  static constexpr uint64_t kMaximumBytes = uint64_t{64} << 20;  // of their buffers

  Session(Channel& channel, const Export& served);
  // Until the client goes. Nothing is under way afterwards.
  void run();

 private:
  enum class Next : uint8_t { kNegotiate, kTransmit, kEnd };
  struct Pending {
    CommandHeader header;
    std::vector<uint8_t> data;  // of a read or write; memory that is the disk's until it has answered
  };
  struct Answer {
    std::vector<uint8_t> head, tail;
    uint64_t bytes = 0;  // that the request took of the limit
  };

  // handshake.cc
  bool negotiate();
  Next on_option(const OptionHeader& header, ByteSpan data);
  Next on_export_name(ByteSpan data);
  Next on_info(const OptionHeader& header, ByteSpan data);
  Next on_contexts(const OptionHeader& header, ByteSpan data);
  Next reply(uint32_t option, OptionReply reply, const std::vector<uint8_t>& data = {});
  [[nodiscard]] bool is_mine(const std::string& name) const { return name.empty() || name == export_.name; }
  [[nodiscard]] uint16_t transmission_flags() const;

  // transmission.cc
  void transmit();
  bool take_request();
  void carry_out(const std::shared_ptr<Pending>& pending);
  void completed(const std::shared_ptr<Pending>& pending, Status status);
  void finish(Pending& pending, ErrorNumber error);
  void answer(Answer answer);
  void say_block_status(Pending& pending);
  void send_answers();
  // Counts a request of so many bytes when the limits allow one more.
  void wait_for_room(uint64_t bytes);

  Channel& channel_;
  const Export& export_;
  Offer offer_;
  bool no_zeroes_ = false, structured_ = false;
  std::string contexts_of_;  // the export for which block status was asked

  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<Answer> answers_ GUARDED_BY(mutex_);
  unsigned under_way_ GUARDED_BY(mutex_) = 0;  // requests whose answers have not been sent
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  bool ending_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::block::nbd

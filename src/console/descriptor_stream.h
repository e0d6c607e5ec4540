// A ByteStream over descriptors that an event loop serves: the common part of every back end. Both directions go
// through bounded rings, so that a device never waits for the host; output is gathered for a millisecond before it is
// written.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>

#include "console/byte_ring.h"
#include "console/byte_stream.h"
#include "support/loop/event_loop.h"
#include "support/os/mutex.h"

namespace bulkhead::console {

// What becomes of output while nobody is at the far end.
enum class Absence {
  kDrop,
  kKeepLatest,  // as much as the ring holds, for whoever comes next
};

struct StreamCounters {
  uint64_t bytes_from_guest = 0;
  uint64_t bytes_to_guest = 0;
  uint64_t bytes_dropped = 0;  // output that nobody took
};

class DescriptorStream : public ByteStream {
 public:
  static constexpr size_t kOutputRing = size_t{64} * 1024;
  static constexpr size_t kInputRing = 4096;

  // Without descriptors until attach(). Dies on the loop's thread, or when the loop does not run.
  DescriptorStream(EventLoop& loop, Absence absence);
  ~DescriptorStream() override;

  size_t write(ByteSpan bytes) override;
  size_t read(MutableByteSpan out) override;
  void set_listener(std::function<void()> on_ready) override;

  // Waits until what was written has left, for as long as it keeps moving: gives up after patience without progress.
  // Not on the loop's thread. True when nothing is left, or nobody is there to take it.
  bool flush(std::chrono::milliseconds patience);
  [[nodiscard]] StreamCounters counters() const;

 protected:
  // The rest runs on the loop's thread, or before the loop runs.

  // Either may be -1, or both the same. They stay the caller's and open until detach().
  void attach(int input, int output);
  void detach();
  [[nodiscard]] bool attached() const { return input_.fd >= 0 || output_.fd >= 0; }

  // The far end is gone: end of input, a hang-up or a write error. The stream has detached the ends concerned already.
  virtual void on_hangup() {}
  // Sees input before the guest does and may take bytes out; returns how many leading bytes remain.
  virtual size_t filter_input(MutableByteSpan bytes) { return bytes.size(); }

  EventLoop& loop_;

 private:
  struct End {
    int fd = -1;
    uint32_t events = 0;        // asked of the loop
    bool always_ready = false;  // what epoll does not take
    bool non_blocking = false;
  };

  void set_interest(End& end, uint32_t events);
  void update_interest();
  void on_events(int fd, uint32_t events);
  void receive();
  void transmit();
  void end_input();
  void end_output();
  void notify_if_owed();
  void request_service(std::chrono::milliseconds delay);
  void service();
  void notify_listener();

  const Absence absence_;
  End input_, output_;
  bool output_blocked_ = false;
  // Work posted to the loop holds a weak reference, so that it dies with the stream.
  std::shared_ptr<DescriptorStream*> self_;

  mutable Mutex mutex_;
  ByteRing from_guest_ GUARDED_BY(mutex_){kOutputRing};
  ByteRing to_guest_ GUARDED_BY(mutex_){kInputRing};
  StreamCounters counters_ GUARDED_BY(mutex_);
  bool has_output_ GUARDED_BY(mutex_) = false;
  bool short_count_given_ GUARDED_BY(mutex_) = false;
  bool service_requested_ GUARDED_BY(mutex_) = false;
  uint64_t progress_ GUARDED_BY(mutex_) = 0;
  ConditionVariable moved_;

  std::shared_ptr<std::function<void()>> listener_ GUARDED_BY(mutex_);
  std::thread::id notifying_ GUARDED_BY(mutex_);
  ConditionVariable notified_;
};

}  // namespace bulkhead::console

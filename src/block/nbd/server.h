// Serves a disk to whoever connects to a listening socket, each client with threads of its own. It keeps the number of
// clients limited; more of them wait to be accepted.
#pragma once

#include <atomic>
#include <list>
#include <memory>

#include "block/nbd/session.h"
#include "support/os/fd.h"
#include "support/os/thread.h"

namespace bulkhead::block::nbd {

// A connected stream socket. A negotiation must end in 30 seconds; behind that, whoever has begun to say or to take
// something must go on within 60.
class SocketChannel final : public Channel {
 public:
  explicit SocketChannel(Fd socket);
  [[nodiscard]] bool read(MutableByteSpan bytes, Wait wait) override;
  [[nodiscard]] bool write(ByteSpan head, ByteSpan tail) override;
  // From any thread: no further request is read.
  void stop_reading();

 private:
  [[nodiscard]] bool wait_until_ready(short event, int timeout_ms);
  // Ends both directions; always false.
  bool give_up();
  [[nodiscard]] int patience_ms(Wait wait, bool begun) const;

  const Fd socket_;
  const uint64_t begun_ms_;
  std::atomic<bool> stopped_{false};
};

class Server {
 public:
  static constexpr unsigned kMaximumClients = 32;

  // listener: non-blocking, of any kind of stream.
  Server(const Fd& listener, const Export& served) : listener_(listener), export_(served) {}
  // Until the descriptor can be read. Whatever was taken from clients is answered first.
  Result<> run(int stop);

 private:
  struct Client {
    Client(Fd socket, const Export& served) : channel(std::move(socket)), session(channel, served) {}
    SocketChannel channel;
    Session session;
    std::atomic<bool> ended{false};
    Thread thread;
  };
  [[nodiscard]] bool accept();

  const Fd& listener_;
  const Export& export_;
  std::list<std::unique_ptr<Client>> clients_;
};

}  // namespace bulkhead::block::nbd

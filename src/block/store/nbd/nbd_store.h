// A disk that an NBD server keeps, as a Store of fixed size. When the connection is lost, the next request connects
// anew, and what fails then is an error of that request. A server may lose with the connection what it has not made
// safe, so changes are kept in memory until a flush, and repeated in their order on the new connection:
//
//   change -> server answers -> kept -> [server flushes] -> forgotten
//
// so no change that was answered is ever missing. Nobody else may write to the disk meanwhile; NBD knows no locks.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "block/store/nbd/connection.h"
#include "block/store/store.h"
#include "support/log.h"
#include "support/os/mutex.h"

namespace bulkhead::block::nbd {

class NbdStore final : public Store {
 public:
  // Changes that are kept until a flush, which comes of itself behind so many.
  static constexpr uint64_t kMostKeptBytes = uint64_t{64} << 20;

  static Result<std::unique_ptr<Store>> open(const std::string& uri, Access access);

  [[nodiscard]] const std::string& name() const override { return uri_; }
  [[nodiscard]] Result<uint64_t> size() override { return served_.size; }
  [[nodiscard]] Status read(uint64_t offset, MutableByteSpan bytes) override;
  [[nodiscard]] Status write(uint64_t offset, ByteSpan bytes) override;
  [[nodiscard]] Status flush() override;
  [[nodiscard]] Status punch(uint64_t offset, uint64_t size) override;
  // Only to the size that it has.
  [[nodiscard]] Status truncate(uint64_t size) override;
  [[nodiscard]] bool starts_as_zeroes() const override { return false; }
  [[nodiscard]] StoreExtent extent(uint64_t offset) override;

 private:
  NbdStore(std::string uri, std::shared_ptr<Connection> connection)
      : uri_(std::move(uri)), served_(connection->served()), connection_(std::move(connection)) {}

  // A change that was answered and that no flush has made safe yet.
  struct Kept {
    uint64_t number = 0, offset = 0, size = 0;
    std::vector<uint8_t> bytes;  // empty for zeroes
  };

  // A connection that works, or null.
  std::shared_ptr<Connection> usable();
  Result<std::shared_ptr<Connection>> connect_again() REQUIRES(mutex_);
  // Once more where the connection is lost meanwhile.
  template <typename Call>
  [[nodiscard]] Status with_connection(Call call);
  [[nodiscard]] Status read_pieces(uint64_t offset, MutableByteSpan bytes);
  [[nodiscard]] Status write_pieces(uint64_t offset, ByteSpan bytes);
  [[nodiscard]] Status write_blocks_of(uint64_t offset, ByteSpan bytes);
  // False when another connection has come since, which knows nothing of the change.
  [[nodiscard]] bool keep(const Connection& connection, Kept change);
  // Before a change: flushes when too much is kept.
  [[nodiscard]] Status make_room();

  const std::string uri_;
  const ServedDisk served_;
  log::RateLimit error_limit_;
  // Shared by writes of whole blocks, alone for those that read the rest of a block and write it back.
  std::shared_mutex blocks_;

  Mutex mutex_;
  std::shared_ptr<Connection> connection_ GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point next_try_ GUARDED_BY(mutex_);
  std::deque<Kept> kept_ GUARDED_BY(mutex_);
  uint64_t kept_bytes_ GUARDED_BY(mutex_) = 0, last_number_ GUARDED_BY(mutex_) = 0;
  bool lost_ GUARDED_BY(mutex_) = false;
};

}  // namespace bulkhead::block::nbd

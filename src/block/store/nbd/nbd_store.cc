#include "block/store/nbd/nbd_store.h"

#include <algorithm>

namespace bulkhead::block::nbd {
namespace {

constexpr auto kBetweenTries = std::chrono::seconds(1);
// Of zeroes or of a question; what the protocol's 32 bits hold, in whole blocks.
constexpr uint64_t kMostRange = uint64_t{1} << 31;

}  // namespace

Result<std::unique_ptr<Store>> NbdStore::open(const std::string& uri, Access access) {
  std::shared_ptr<Connection> connection = TRY(Connection::open(uri));
  if (access != Access::kReadOnly && connection->served().read_only) {
    return fail("open '{}': the server lets nobody write", uri);
  }
  return std::unique_ptr<Store>(new NbdStore(uri, std::move(connection)));
}

Result<std::shared_ptr<Connection>> NbdStore::connect_again() {
  std::shared_ptr<Connection> made = TRY(Connection::open(uri_));
  const ServedDisk& now = made->served();
  if (now.size != served_.size || now.least_bytes > served_.least_bytes || now.most_bytes < served_.most_bytes) {
    return fail("'{}' has another size or other limits now", uri_);
  }
  for (const Kept& change : kept_) {
    const Status status =
        change.bytes.empty() ? made->zero(change.offset, change.size) : made->write(change.offset, change.bytes);
    if (status != Status::kOk) return fail("'{}': what was written before, anew: {}", uri_, to_string(status));
  }
  log::warning("disk '{}': connected again, {} changes repeated", uri_, kept_.size());
  return made;
}

std::shared_ptr<Connection> NbdStore::usable() {
  const LockGuard lock(mutex_);
  if (connection_->alive()) return connection_;
  if (std::chrono::steady_clock::now() < next_try_) return nullptr;
  auto made = connect_again();
  if (made) return connection_ = *std::move(made);
  next_try_ = std::chrono::steady_clock::now() + kBetweenTries;
  if (error_limit_.allow()) log::error("disk '{}': {} ({} times)", uri_, made.error().message, error_limit_.count());
  return nullptr;
}

template <typename Call>
Status NbdStore::with_connection(Call call) {
  Status status = Status::kIoError;
  for (int tries = 0; tries < 2; ++tries) {
    const auto connection = usable();
    if (!connection) return Status::kIoError;
    status = call(*connection);
    if (status == Status::kOk || connection->alive()) break;
  }
  return status;
}

bool NbdStore::keep(const Connection& connection, Kept change) {
  if (!served_.flushes) return true;  // such a server keeps nothing back
  const LockGuard lock(mutex_);
  if (connection_.get() != &connection) return false;
  change.number = ++last_number_;
  kept_bytes_ += change.bytes.size() + sizeof change;
  kept_.push_back(std::move(change));
  return true;
}

Status NbdStore::make_room() {
  {
    const LockGuard lock(mutex_);
    if (kept_bytes_ < kMostKeptBytes) return Status::kOk;
  }
  return flush();
}

Status NbdStore::read_pieces(uint64_t offset, MutableByteSpan bytes) {
  while (!bytes.empty()) {
    const MutableByteSpan piece = bytes.first(std::min<uint64_t>(bytes.size(), served_.most_bytes));
    const Status status = with_connection([&](Connection& connection) { return connection.read(offset, piece); });
    if (status != Status::kOk) return status;
    offset += piece.size();
    bytes = bytes.subspan(piece.size());
  }
  return Status::kOk;
}

Status NbdStore::read(uint64_t offset, MutableByteSpan bytes) {
  const uint64_t there = offset < served_.size ? std::min<uint64_t>(bytes.size(), served_.size - offset) : 0;
  std::ranges::fill(bytes.subspan(there), uint8_t{0});
  bytes = bytes.first(there);
  const uint64_t begin = align_down(offset, served_.least_bytes), end = align_up(offset + there, served_.least_bytes);
  if (begin == offset && end == offset + there) return read_pieces(offset, bytes);
  std::vector<uint8_t> blocks(end - begin);
  const Status status = read_pieces(begin, blocks);
  if (status == Status::kOk) std::copy_n(&blocks[offset - begin], bytes.size(), bytes.data());
  return status;
}

Status NbdStore::write_pieces(uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ByteSpan piece = bytes.first(std::min<uint64_t>(bytes.size(), served_.most_bytes));
    if (const Status room = make_room(); room != Status::kOk) return room;
    const Status status = with_connection([&](Connection& connection) {
      const Status written = connection.write(offset, piece);
      if (written != Status::kOk) return written;
      const bool known =
          keep(connection, {.offset = offset, .size = piece.size(), .bytes = {piece.begin(), piece.end()}});
      return known ? Status::kOk : Status::kIoError;
    });
    if (status != Status::kOk) return status;
    offset += piece.size();
    bytes = bytes.subspan(piece.size());
  }
  return Status::kOk;
}

// With what else is in them.
Status NbdStore::write_blocks_of(uint64_t offset, ByteSpan bytes) {
  const std::unique_lock alone(blocks_);
  const uint64_t begin = align_down(offset, served_.least_bytes);
  std::vector<uint8_t> blocks(align_up(offset + bytes.size(), served_.least_bytes) - begin);
  if (const Status status = read_pieces(begin, blocks); status != Status::kOk) return status;
  std::ranges::copy(bytes, &blocks[offset - begin]);
  return write_pieces(begin, blocks);
}

Status NbdStore::write(uint64_t offset, ByteSpan bytes) {
  if (!range_fits(offset, bytes.size(), served_.size)) return Status::kNoSpace;
  if (((offset | bytes.size()) & (served_.least_bytes - 1)) != 0) return write_blocks_of(offset, bytes);
  const std::shared_lock shared(blocks_);
  return write_pieces(offset, bytes);
}

Status NbdStore::flush() {
  if (!served_.flushes) return Status::kOk;
  return with_connection([&](Connection& connection) {
    uint64_t last = 0;
    {
      const LockGuard lock(mutex_);
      if (lost_) return Status::kLost;
      last = last_number_;
    }
    const Status status = connection.flush();
    const LockGuard lock(mutex_);
    if (status != Status::kOk) {
      // A server that is there has told of its loss once. One that is gone gets everything again.
      lost_ = lost_ || connection.alive();
      return lost_ ? Status::kLost : status;
    }
    while (!kept_.empty() && kept_.front().number <= last) {
      kept_bytes_ -= kept_.front().bytes.size() + sizeof kept_.front();
      kept_.pop_front();
    }
    return status;
  });
}

Status NbdStore::punch(uint64_t offset, uint64_t size) {
  if (!served_.zeroes || ((offset | size) & (served_.least_bytes - 1)) != 0) return Status::kUnsupported;
  if (!range_fits(offset, size, served_.size)) return Status::kNoSpace;
  const std::shared_lock shared(blocks_);
  while (size != 0) {
    const uint64_t piece = std::min(size, kMostRange);
    if (const Status room = make_room(); room != Status::kOk) return room;
    const Status status = with_connection([&](Connection& connection) {
      const Status zeroed = connection.zero(offset, piece);
      if (zeroed != Status::kOk) return zeroed;
      return keep(connection, {.offset = offset, .size = piece}) ? Status::kOk : Status::kIoError;
    });
    if (status != Status::kOk) return status;
    offset += piece;
    size -= piece;
  }
  return Status::kOk;
}

Status NbdStore::truncate(uint64_t size) {
  return size == served_.size ? Status::kOk : Status::kUnsupported;
}

StoreExtent NbdStore::extent(uint64_t offset) {
  const uint64_t begin = align_down(offset, served_.least_bytes), left = served_.size - offset;
  const auto connection = served_.says_where_data_is ? usable() : nullptr;
  if (!connection) return {.size = left};
  const Connection::Extent found = connection->extent(begin, std::min(served_.size - begin, kMostRange));
  if (found.size <= offset - begin) return {.size = left};
  return {.size = std::min(left, found.size - (offset - begin)), .hole = found.zero};
}

}  // namespace bulkhead::block::nbd

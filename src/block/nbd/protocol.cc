#include "block/nbd/protocol.h"

namespace bulkhead::block::nbd {
namespace {

// Takes numbers and texts off the front of what a client sent.
class Reader {
 public:
  explicit Reader(ByteSpan left) : left_(left) {}

  template <typename T>
  [[nodiscard]] std::optional<T> number() {
    if (left_.size() < sizeof(T)) return std::nullopt;
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(uint64_t{value} << 8 | left_[i]);
    left_ = left_.subspan(sizeof(T));
    return value;
  }
  // Behind its size in 32 bits.
  [[nodiscard]] std::optional<std::string> text() {
    const auto size = number<uint32_t>();
    if (!size || *size > left_.size() || *size > kMaximumNameBytes) return std::nullopt;
    std::string text(reinterpret_cast<const char*>(left_.data()), *size);
    left_ = left_.subspan(*size);
    return text;
  }
  [[nodiscard]] size_t left() const { return left_.size(); }

 private:
  ByteSpan left_;
};

}  // namespace

std::optional<OptionHeader> parse_option_header(ByteSpan bytes) {
  Reader reader(bytes);
  const auto magic = reader.number<uint64_t>();
  const auto option = reader.number<uint32_t>(), size = reader.number<uint32_t>();
  if (!size || *magic != kOptionMagic) return std::nullopt;
  return OptionHeader{.option = *option, .size = *size};
}

std::optional<InfoQuery> parse_info_query(ByteSpan data) {
  Reader reader(data);
  auto name = reader.text();
  if (!name) return std::nullopt;
  InfoQuery query{.name = std::move(*name), .wanted = {}};
  const auto count = reader.number<uint16_t>();
  if (!count || reader.left() != size_t{*count} * 2) return std::nullopt;
  for (uint16_t i = 0; i < *count; ++i) query.wanted.push_back(*reader.number<uint16_t>());
  return query;
}

std::optional<ContextQuery> parse_context_query(ByteSpan data) {
  Reader reader(data);
  auto name = reader.text();
  const auto count = reader.number<uint32_t>();
  // Each takes four bytes at least.
  if (!name || !count || *count > reader.left() / 4) return std::nullopt;
  ContextQuery query{.name = std::move(*name), .contexts = {}};
  for (uint32_t i = 0; i < *count; ++i) {
    auto context = reader.text();
    if (!context) return std::nullopt;
    query.contexts.push_back(std::move(*context));
  }
  if (reader.left() != 0) return std::nullopt;
  return query;
}

std::optional<CommandHeader> parse_request(ByteSpan bytes) {
  Reader reader(bytes);
  const auto magic = reader.number<uint32_t>();
  const auto flags = reader.number<uint16_t>(), type = reader.number<uint16_t>();
  const auto cookie = reader.number<uint64_t>(), offset = reader.number<uint64_t>();
  const auto size = reader.number<uint32_t>();
  if (!size || *magic != kRequestMagic) return std::nullopt;
  return CommandHeader{.flags = *flags, .type = *type, .cookie = *cookie, .offset = *offset, .size = *size};
}

ErrorNumber check_request(const Offer& offer, const CommandHeader& header) {
  uint16_t allowed = kFlagFua;
  bool changes = false, transfers = false;
  switch (Command{header.type}) {
    case Command::kFlush:
      return (header.flags & ~allowed) != 0 || header.offset != 0 || header.size != 0 ? ErrorNumber::kInvalid
                                                                                      : ErrorNumber::kNone;
    case Command::kRead:
      allowed |= kFlagDoNotFragment;
      transfers = true;
      break;
    case Command::kWrite:
      changes = transfers = true;
      break;
    case Command::kTrim:
      changes = true;
      break;
    case Command::kWriteZeroes:
      allowed |= kFlagNoHole;
      changes = true;
      break;
    case Command::kBlockStatus:
      if (!offer.has_contexts) return ErrorNumber::kInvalid;
      allowed |= kFlagOneExtent;
      break;
    case Command::kDisconnect:
    default:
      return ErrorNumber::kInvalid;
  }
  if (changes && offer.read_only) return ErrorNumber::kPermission;
  const bool aligned = ((header.offset | header.size) & (offer.block_bytes - 1)) == 0;
  if ((header.flags & ~allowed) != 0 || header.size == 0 || !aligned) return ErrorNumber::kInvalid;
  if (transfers && header.size > kMaximumTransfer) return ErrorNumber::kInvalid;
  if (range_fits(header.offset, header.size, offer.size)) return ErrorNumber::kNone;
  return changes ? ErrorNumber::kNoSpace : ErrorNumber::kInvalid;
}

std::vector<uint8_t> make_option_reply(uint32_t option, OptionReply reply, const std::vector<uint8_t>& data) {
  return Writer()
      .put(kOptionReplyMagic)
      .put(option)
      .put(static_cast<uint32_t>(reply))
      .put(static_cast<uint32_t>(data.size()))
      .put(data)
      .take();
}

std::vector<uint8_t> make_simple_reply(ErrorNumber error, uint64_t cookie) {
  return Writer().put(kSimpleReplyMagic).put(static_cast<uint32_t>(error)).put(cookie).take();
}

std::vector<uint8_t> make_chunk(Chunk type, uint64_t cookie, uint32_t size) {
  return Writer()
      .put(kStructuredReplyMagic)
      .put(kReplyDone)
      .put(static_cast<uint16_t>(type))
      .put(cookie)
      .put(size)
      .take();
}

}  // namespace bulkhead::block::nbd

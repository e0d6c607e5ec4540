// The negotiation: what the server offers, the client's options, and the one that ends it.
#include <algorithm>

#include "block/nbd/session.h"

namespace bulkhead::block::nbd {

Session::Session(Channel& channel, const Export& served) : channel_(channel), export_(served) {
  const Geometry& geometry = served.disk.geometry();
  offer_ = {
      .size = geometry.size, .block_bytes = geometry.sector_size, .read_only = served.read_only || geometry.read_only};
}

void Session::run() {
  if (negotiate()) transmit();
}

uint16_t Session::transmission_flags() const {
  uint16_t flags = kHasFlags | kSendFlush | kSendFua | kCanMultiConn;
  flags |= offer_.read_only ? kReadOnly : kSendTrim | kSendWriteZeroes;
  if (structured_) flags |= kSendDoNotFragment;
  return flags;
}

// True when requests follow.
bool Session::negotiate() {
  const auto greeting = Writer().put(kServerMagic).put(kOptionMagic).put(uint16_t{kFixedNewstyle | kNoZeroes}).take();
  if (!channel_.write(greeting, {})) return false;
  std::vector<uint8_t> bytes(4);
  if (!channel_.read(bytes, Channel::Wait::kNegotiation)) return false;
  const uint32_t flags = uint32_t{bytes[0]} << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
  if ((flags & ~uint32_t{kFixedNewstyle | kNoZeroes}) != 0) return false;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  Next next = Next::kNegotiate;
  for (unsigned count = 0; next == Next::kNegotiate && count < kMaximumOptions; ++count) {
    bytes.resize(kOptionHeaderBytes);
    if (!channel_.read(bytes, Channel::Wait::kNegotiation)) return false;
    const auto header = parse_option_header(bytes);
    if (!header) return false;
    if (header->size > kMaximumOptionBytes) {
      (void)reply(header->option, OptionReply::kTooBig);
      return false;
    }
    bytes.resize(header->size);
    if (!channel_.read(bytes, Channel::Wait::kNegotiation)) return false;
    next = on_option(*header, bytes);
  }
  return next == Next::kTransmit;
}

Session::Next Session::reply(uint32_t option, OptionReply reply, const std::vector<uint8_t>& data) {
  return channel_.write(make_option_reply(option, reply, data), {}) ? Next::kNegotiate : Next::kEnd;
}

Session::Next Session::on_option(const OptionHeader& header, ByteSpan data) {
  switch (Option{header.option}) {
    case Option::kExportName:
      return on_export_name(data);
    case Option::kAbort:
      (void)reply(header.option, OptionReply::kAck);
      return Next::kEnd;
    case Option::kList: {
      if (!data.empty()) return reply(header.option, OptionReply::kInvalid);
      const auto name = Writer().put(static_cast<uint32_t>(export_.name.size())).put(export_.name).take();
      if (reply(header.option, OptionReply::kServer, name) == Next::kEnd) return Next::kEnd;
      return reply(header.option, OptionReply::kAck);
    }
    case Option::kInfo:
    case Option::kGo:
      return on_info(header, data);
    case Option::kStructuredReply:
      if (!data.empty()) return reply(header.option, OptionReply::kInvalid);
      structured_ = true;
      return reply(header.option, OptionReply::kAck);
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return on_contexts(header, data);
    case Option::kStartTls:
      break;
  }
  return reply(header.option, OptionReply::kUnsupported);
}

// The old way in, which knows no error: who names another export is left.
Session::Next Session::on_export_name(ByteSpan data) {
  if (!is_mine({reinterpret_cast<const char*>(data.data()), data.size()})) return Next::kEnd;
  Writer writer;
  writer.put(offer_.size).put(transmission_flags());
  if (!no_zeroes_) writer.put(std::vector<uint8_t>(124));
  offer_.has_contexts = false;
  return channel_.write(writer.take(), {}) ? Next::kTransmit : Next::kEnd;
}

Session::Next Session::on_info(const OptionHeader& header, ByteSpan data) {
  const auto query = parse_info_query(data);
  if (!query) return reply(header.option, OptionReply::kInvalid);
  if (!is_mine(query->name)) return reply(header.option, OptionReply::kUnknown);
  const auto say = [&](Info info, Writer& writer) {
    return reply(header.option, OptionReply::kInfo,
                 Writer().put(static_cast<uint16_t>(info)).put(writer.take()).take()) == Next::kNegotiate;
  };
  if (!say(Info::kExport, Writer().put(offer_.size).put(transmission_flags()))) return Next::kEnd;
  const auto wants = [&](Info info) {
    return std::ranges::find(query->wanted, static_cast<uint16_t>(info)) != query->wanted.end();
  };
  if (wants(Info::kName) && !say(Info::kName, Writer().put(std::string_view(export_.name)))) return Next::kEnd;
  if (wants(Info::kBlockSize)) {
    const uint32_t preferred = std::max(export_.disk.geometry().physical_block_size, offer_.block_bytes);
    if (!say(Info::kBlockSize, Writer().put(offer_.block_bytes).put(preferred).put(kMaximumTransfer))) {
      return Next::kEnd;
    }
  }
  if (reply(header.option, OptionReply::kAck) == Next::kEnd) return Next::kEnd;
  if (Option{header.option} == Option::kInfo) return Next::kNegotiate;
  // What was asked for another name does not hold for this one.
  if (query->name != contexts_of_) offer_.has_contexts = false;
  return Next::kTransmit;
}

Session::Next Session::on_contexts(const OptionHeader& header, ByteSpan data) {
  const bool sets = Option{header.option} == Option::kSetMetaContext;
  if (sets) offer_.has_contexts = false;
  const auto query = parse_context_query(data);
  if (!query || !structured_) return reply(header.option, OptionReply::kInvalid);
  if (!is_mine(query->name)) return reply(header.option, OptionReply::kUnknown);
  const bool found = std::ranges::any_of(query->contexts, [&](const std::string& context) {
    return context == kAllocation || (!sets && context == "base:");
  });
  if (found || (!sets && query->contexts.empty())) {
    const auto context = Writer().put(sets ? kAllocationId : uint32_t{0}).put(kAllocation).take();
    if (reply(header.option, OptionReply::kMetaContext, context) == Next::kEnd) return Next::kEnd;
  }
  if (sets && found) {
    offer_.has_contexts = true;
    contexts_of_ = query->name;
  }
  return reply(header.option, OptionReply::kAck);
}

}  // namespace bulkhead::block::nbd

#include "net/probe/tcp_probe.h"

#include "net/frame/frame_builder.h"

namespace bulkhead::net::probe {

using frame::FrameBuilder, frame::kTcpAcknowledge, frame::kTcpFin, frame::kTcpPush, frame::kTcpReset, frame::kTcpSyn;

std::vector<uint8_t> TcpProbe::arp(uint16_t operation, const frame::MacAddress& target_mac,
                                   const frame::IpAddress& target) const {
  const bool asks = operation == frame::kArpRequest;
  return FrameBuilder()
      .ethernet(question_.own_mac, asks ? frame::MacAddress::broadcast() : target_mac)
      .arp({.operation = operation,
            .sender_mac = question_.own_mac,
            .sender = question_.own_address,
            .target_mac = target_mac,
            .target = target})
      .build();
}

std::vector<uint8_t> TcpProbe::segment(uint8_t flags, uint32_t sequence, ByteSpan payload) const {
  return FrameBuilder()
      .ethernet(question_.own_mac, mac_)
      .ipv4(question_.own_address.to_string(), question_.address.to_string())
      .tcp(question_.own_port, question_.port, flags, sequence, next_, kMaximumAnswer)
      .payload(payload)
      .build();
}

std::vector<std::vector<uint8_t>> TcpProbe::poll(uint64_t now_ns) {
  if (sent_ns_ != 0 && now_ns - sent_ns_ < kRepeat_ns) return {};
  sent_ns_ = now_ns;
  switch (state_) {
    case State::kResolving:
      return {arp(frame::kArpRequest, {}, question_.address)};
    case State::kConnecting:
      return {segment(kTcpSyn, question_.first_sequence)};
    case State::kAsking:
      return {segment(kTcpAcknowledge | kTcpPush, question_.first_sequence + 1, question_.text)};
    case State::kGood:
    case State::kBad:
      break;
  }
  return {};
}

std::vector<std::vector<uint8_t>> TcpProbe::receive(ByteSpan frame) {
  const frame::Headers headers = frame::read_headers(frame);
  if (headers.fault != frame::Fault::kNone) return {};
  if (headers.arp) {
    // The other may ask first, and again later.
    if (headers.arp->operation == frame::kArpRequest && headers.arp->target == question_.own_address) {
      return {arp(frame::kArpReply, headers.arp->sender_mac, headers.arp->sender)};
    }
    if (state_ != State::kResolving || headers.arp->operation != frame::kArpReply ||
        headers.arp->sender != question_.address) {
      return {};
    }
    mac_ = headers.arp->sender_mac;
    state_ = State::kConnecting;
    return {segment(kTcpSyn, question_.first_sequence)};
  }
  const bool ours = headers.tcp && headers.ip->source == question_.address &&
                    headers.ip->destination == question_.own_address && headers.tcp->source_port == question_.port &&
                    headers.tcp->destination_port == question_.own_port;
  return ours ? on_tcp(headers, frame) : std::vector<std::vector<uint8_t>>();
}

std::vector<std::vector<uint8_t>> TcpProbe::on_tcp(const frame::Headers& headers, ByteSpan frame) {
  const frame::Tcp& tcp = *headers.tcp;
  if (state_ != State::kConnecting && state_ != State::kAsking) return {};
  if ((tcp.flags & kTcpReset) != 0) {
    state_ = State::kBad;
    return {};
  }
  const uint32_t asked_end = static_cast<uint32_t>(question_.first_sequence + 1 + question_.text.size());
  if ((tcp.flags & kTcpSyn) != 0) {
    if ((tcp.flags & kTcpAcknowledge) == 0 || tcp.acknowledgement != question_.first_sequence + 1) return {};
    next_ = tcp.sequence + 1;
    if (question_.text.empty()) {
      state_ = State::kGood;
      return {segment(kTcpReset | kTcpAcknowledge, question_.first_sequence + 1)};
    }
    state_ = State::kAsking;
    return {segment(kTcpAcknowledge | kTcpPush, question_.first_sequence + 1, question_.text)};
  }
  if (state_ != State::kAsking || tcp.sequence != next_) return {};
  const ByteSpan payload = frame.subspan(headers.transport_payload_offset, headers.transport_payload_size);
  if (answer_.size() + payload.size() > kMaximumAnswer) {
    state_ = State::kBad;
    return {segment(kTcpReset | kTcpAcknowledge, asked_end)};
  }
  answer_.insert(answer_.end(), payload.begin(), payload.end());
  next_ += static_cast<uint32_t>(payload.size());
  const auto judgement = question_.judge(answer_);
  const bool over = (tcp.flags & kTcpFin) != 0;
  if (judgement == Question::Judgement::kMore && !over) {
    if (payload.empty()) return {};
    return {segment(kTcpAcknowledge, asked_end)};
  }
  state_ = judgement == Question::Judgement::kGood ? State::kGood : State::kBad;
  return {segment(kTcpReset | kTcpAcknowledge, asked_end)};
}

}  // namespace bulkhead::net::probe

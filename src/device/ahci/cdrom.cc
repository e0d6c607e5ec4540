#include "device/ahci/cdrom.h"

#include <algorithm>
#include <string_view>

#include "spec/ahci.h"

namespace bulkhead::device::ahci {

using spec::ahci::kCdSectorSize;
using spec::ahci::Packet;

namespace {

constexpr uint8_t kNotReady = 2;
constexpr uint8_t kIllegalRequest = 5;
constexpr uint8_t kUnitAttention = 6;
constexpr uint8_t kLeadOutTrack = 0xAA;

uint32_t big(const uint8_t* bytes, size_t size) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; ++i) value = value << 8 | bytes[i];
  return value;
}

void put_big(std::vector<uint8_t>& data, size_t at, size_t size, uint32_t value) {
  for (size_t i = 0; i < size; ++i) data[at + i] = static_cast<uint8_t>(value >> (8 * (size - 1 - i)));
}

void put_text(std::vector<uint8_t>& data, size_t at, size_t size, std::string_view text) {
  for (size_t i = 0; i < size; ++i) data[at + i] = i < text.size() ? static_cast<uint8_t>(text[i]) : ' ';
}

// At most as many bytes as the driver has room for.
Cdrom::Answer answer(std::vector<uint8_t> data, size_t room) {
  data.resize(std::min(data.size(), room));
  return {.data = std::move(data)};
}

std::vector<uint8_t> inquiry() {
  std::vector<uint8_t> data(36);
  data[0] = 5;     // CD or DVD
  data[1] = 0x80;  // removable
  data[3] = 0x21;  // ATAPI
  data[4] = static_cast<uint8_t>(data.size() - 5);
  put_text(data, 8, 8, "Bulkhead");
  put_text(data, 16, 16, "CD drive");
  put_text(data, 32, 4, "1.0");
  return data;
}

// 6.6: the profiles, the core and the removable medium.
std::vector<uint8_t> configuration(bool has_disc, uint32_t sector_count) {
  std::vector<uint8_t> data(8 + 12 + 12 + 8);
  constexpr uint16_t kCd = 0x0008;
  constexpr uint16_t kDvd = 0x0010;
  const bool is_dvd = sector_count > 360'000;
  put_big(data, 0, 4, static_cast<uint32_t>(data.size() - 4));
  put_big(data, 6, 2, has_disc ? (is_dvd ? kDvd : kCd) : 0);
  data[10] = 0x03;  // profile list, persistent and current
  data[11] = 8;
  put_big(data, 12, 2, kDvd);
  data[14] = has_disc && is_dvd ? 1 : 0;
  put_big(data, 16, 2, kCd);
  data[18] = has_disc && !is_dvd ? 1 : 0;
  put_big(data, 20, 2, 0x0001);  // core
  data[22] = 0x0B;
  data[23] = 8;
  put_big(data, 24, 4, 2);  // ATAPI
  data[28] = 1;
  put_big(data, 32, 2, 0x0003);  // removable medium
  data[34] = 0x03;
  data[35] = 4;
  data[36] = 0x29;  // a tray that can be locked and that ejects
  return data;
}

}  // namespace

Cdrom::Answer Cdrom::failed(uint8_t key, uint8_t code, uint8_t qualifier) {
  set_sense(key, code, qualifier);
  return {.good = false};
}

Cdrom::Answer Cdrom::execute(const std::array<uint8_t, kPacketSize>& packet) {
  const auto operation = static_cast<Packet>(packet[0]);
  // What may be asked of a drive without a disc, or of one whose news was not heard (4.1.6.1).
  switch (operation) {
    case Packet::kRequestSense: {
      std::vector<uint8_t> data(18);
      data[0] = 0x70;
      data[2] = sense_.key;
      data[7] = 10;
      data[12] = sense_.code;
      data[13] = sense_.qualifier;
      sense_ = {};
      return answer(std::move(data), packet[4]);
    }
    case Packet::kInquiry:
      if ((packet[1] & 1) != 0) return failed(kIllegalRequest, 0x24);
      return answer(inquiry(), big(&packet[3], 2));
    case Packet::kGetConfiguration:
      return answer(configuration(has_disc(), sector_count_), big(&packet[7], 2));
    case Packet::kGetEventStatus: {
      if ((packet[1] & 1) == 0) return failed(kIllegalRequest, 0x24);
      std::vector<uint8_t> data{
          0, 6, 0x04, 0x10, changed_ ? uint8_t{2} : uint8_t{0}, has_disc() ? uint8_t{2} : uint8_t{1}, 0, 0};
      if ((packet[4] & 0x10) == 0) data = {0, 2, 0x80, 0x10};
      return answer(std::move(data), big(&packet[7], 2));
    }
    default:
      break;
  }
  sense_ = {};
  if (std::exchange(changed_, false)) return failed(kUnitAttention, 0x28);
  switch (operation) {
    case Packet::kStartStop:
      return start_stop(packet[4]);
    case Packet::kPreventRemoval:
      locked_ = (packet[4] & 1) != 0;
      return {};
    case Packet::kModeSense6:
      return mode_sense(packet[2], 4, packet[4]);
    case Packet::kModeSense10:
      return mode_sense(packet[2], 8, big(&packet[7], 2));
    case Packet::kMechanismStatus: {
      std::vector<uint8_t> data(8);
      data[5] = 1;
      return answer(std::move(data), big(&packet[8], 2));
    }
    case Packet::kTestUnitReady:
    case Packet::kReadCapacity:
    case Packet::kRead10:
    case Packet::kRead12:
    case Packet::kReadToc:
    case Packet::kReadDiscInformation:
      if (!has_disc()) return failed(kNotReady, 0x3A);
      break;
    default:
      return failed(kIllegalRequest, 0x20);
  }
  switch (operation) {
    case Packet::kReadCapacity: {
      std::vector<uint8_t> data(8);
      put_big(data, 0, 4, sector_count_ == 0 ? 0 : sector_count_ - 1);
      put_big(data, 4, 4, kCdSectorSize);
      return {.data = std::move(data)};
    }
    case Packet::kRead10:
      return read(big(&packet[2], 4), big(&packet[7], 2));
    case Packet::kRead12:
      return read(big(&packet[2], 4), big(&packet[6], 4));
    case Packet::kReadToc:
      return read_toc(packet);
    case Packet::kReadDiscInformation: {
      std::vector<uint8_t> data(34);
      put_big(data, 0, 2, static_cast<uint32_t>(data.size() - 2));
      data[2] = 0x0E;  // finished, and so is its last session
      data[3] = data[4] = data[5] = data[6] = 1;
      return answer(std::move(data), big(&packet[7], 2));
    }
    default:
      return {};
  }
}

Cdrom::Answer Cdrom::read(uint64_t first, uint64_t count) {
  if (!range_fits(first, count, sector_count_)) return failed(kIllegalRequest, 0x21);
  if (count > kMaximumSectors) return failed(kIllegalRequest, 0x24);
  return {.read_offset = first * kCdSectorSize, .read_size = count * kCdSectorSize};
}

Cdrom::Answer Cdrom::start_stop(uint8_t flags) {
  constexpr uint8_t kStart = 1;
  constexpr uint8_t kTray = 2;
  if ((flags & kTray) == 0) return {};
  if ((flags & kStart) != 0) {
    changed_ = ejected_;
    ejected_ = false;
    return {};
  }
  if (locked_) return failed(kIllegalRequest, 0x53, 2);
  ejected_ = true;
  return {};
}

// 7.: error recovery and capabilities.
Cdrom::Answer Cdrom::mode_sense(uint8_t page, size_t header_size, size_t room) {
  const uint8_t code = page & 0x3F;
  if ((page & 0xC0) == 0xC0) return failed(kIllegalRequest, 0x39);
  std::vector<uint8_t> data(header_size);
  if (code == 0x01 || code == 0x3F) data.insert(data.end(), {0x01, 0x06, 0x00, 0x05, 0, 0, 0, 0});
  if (code == 0x2A || code == 0x3F) {
    std::vector<uint8_t> capabilities(20);
    capabilities[0] = 0x2A;
    capabilities[1] = 18;
    capabilities[2] = 0x3B;  // reads CD-R, CD-RW, DVD
    capabilities[4] = 0x70;
    capabilities[6] = static_cast<uint8_t>(0x29 | (locked_ ? 2 : 0));
    put_big(capabilities, 8, 2, 706 * 8);
    put_big(capabilities, 14, 2, 706 * 8);
    data.insert(data.end(), capabilities.begin(), capabilities.end());
  }
  if (data.size() == header_size) return failed(kIllegalRequest, 0x24);
  if (header_size == 8) {
    put_big(data, 0, 2, static_cast<uint32_t>(data.size() - 2));
    data[2] = has_disc() ? 0x01 : 0x70;
  } else {
    data[0] = static_cast<uint8_t>(data.size() - 1);
    data[1] = has_disc() ? 0x01 : 0x70;
  }
  return answer(std::move(data), room);
}

// One data track and the lead-out; the addresses as numbers of sectors or as minutes, seconds and frames.
Cdrom::Answer Cdrom::read_toc(const std::array<uint8_t, kPacketSize>& packet) {
  const bool by_time = (packet[1] & 2) != 0;
  const uint8_t format = (packet[2] & 0x0F) != 0 ? packet[2] & 0x0F : packet[9] >> 6;
  const auto put_address = [by_time](std::vector<uint8_t>& data, size_t at, uint32_t sector) {
    if (!by_time) {
      put_big(data, at, 4, sector);
      return;
    }
    const uint32_t frame = sector + 150;
    data[at + 1] = static_cast<uint8_t>(std::min(frame / 75 / 60, 255u));
    data[at + 2] = static_cast<uint8_t>(frame / 75 % 60);
    data[at + 3] = static_cast<uint8_t>(frame % 75);
  };
  std::vector<uint8_t> data(4);
  data[2] = data[3] = 1;
  const auto add = [&](uint8_t track, uint32_t sector) {
    const size_t at = data.size();
    data.resize(at + 8);
    data[at + 1] = 0x14;  // a data track
    data[at + 2] = track;
    put_address(data, at + 4, sector);
  };
  if (format == 0) {
    const uint8_t first = packet[6];
    if (first > 1 && first != kLeadOutTrack) return failed(kIllegalRequest, 0x24);
    if (first <= 1) add(1, 0);
    add(kLeadOutTrack, sector_count_);
  } else if (format == 1) {
    add(1, 0);
  } else {
    return failed(kIllegalRequest, 0x24);
  }
  put_big(data, 0, 2, static_cast<uint32_t>(data.size() - 2));
  return answer(std::move(data), big(&packet[7], 2));
}

void Cdrom::reset() {
  sense_ = {};
  ejected_ = false;
  locked_ = false;
  changed_ = false;
}

void Cdrom::save_state(StateWriter& writer) const {
  writer.put("sense_key", sense_.key)
      .put("sense_code", sense_.code)
      .put("sense_qualifier", sense_.qualifier)
      .put("ejected", ejected_)
      .put("locked", locked_)
      .put("changed", changed_);
}

Result<> Cdrom::restore_state(const StateReader& reader) {
  sense_.key = static_cast<uint8_t>(TRY(reader.get("sense_key", 15)));
  sense_.code = static_cast<uint8_t>(TRY(reader.get("sense_code", UINT8_MAX)));
  sense_.qualifier = static_cast<uint8_t>(TRY(reader.get("sense_qualifier", UINT8_MAX)));
  ejected_ = TRY(reader.get_flag("ejected"));
  locked_ = TRY(reader.get_flag("locked"));
  changed_ = TRY(reader.get_flag("changed"));
  return {};
}

}  // namespace bulkhead::device::ahci

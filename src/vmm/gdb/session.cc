#include "vmm/gdb/session.h"

#include <algorithm>

#include "vmm/gdb/packet.h"

namespace bulkhead::vmm::gdb {
namespace {

constexpr int kSigInt = 2, kSigTrap = 5;
// A memory packet has two digits a byte.
constexpr uint64_t kMaximumMemory = kMaximumPacket / 2 - 64;

Session::Reply text(std::string packet) {
  return {std::move(packet), false};
}
Session::Reply ok() {
  return text("OK");
}
// Numbers as errno has them; gdb prints them and no more.
Session::Reply error(int number) {
  return text(fmt::format("E{:02x}", number));
}
Session::Reply unknown() {
  return text("");
}

constexpr int kBadPacket = 22, kBadAddress = 14, kRefused = 1;

struct Range {
  uint64_t address, size;
};
std::optional<Range> take_range(std::string_view& arguments) {
  const auto address = take_hex(arguments);
  if (!address || !take(arguments, ',')) return std::nullopt;
  const auto size = take_hex(arguments);
  if (!size) return std::nullopt;
  return Range{*address, *size};
}

}  // namespace

Session::Session(Target& target) : target_(target), architecture_(architecture_of(target.get_state(0))) {}

Session::Reply Session::handle(std::string_view packet) {
  if (packet.empty()) return unknown();
  const std::string_view rest = packet.substr(1);
  switch (packet.front()) {
    case '?':
      return text(stop_reply(kSigTrap));
    case 'g':
      return read_registers();
    case 'G':
      return write_registers(rest);
    case 'p':
    case 'P':
      return register_access(packet);
    case 'm':
      return read_memory(rest);
    case 'M':
      return write_memory(rest, false);
    case 'X':
      return write_memory(rest, true);
    case 'Z':
    case 'z':
      return change_point(packet);
    case 'H':
      return select_thread(rest);
    case 'T': {
      std::string_view id = rest;
      return take_thread(id) ? ok() : error(kBadPacket);
    }
    case 'c':
      return resume(std::nullopt, std::nullopt);
    case 's':
      return resume(current_, current_);
    case 'q':
    case 'Q':
      return query(packet);
    case 'D': {
      points_.clear();
      Reply reply = ok();
      reply.close = true;
      return reply;
    }
    case 'k':
      target_.quit();
      return {std::nullopt, true};
    case 'v':
      if (packet == "vCont?") return text("vCont;c;C;s;S");
      if (packet.starts_with("vCont;")) return continue_by(packet.substr(6));
      if (packet.starts_with("vKill")) {
        target_.quit();
        return {"OK", true};
      }
      return unknown();
    default:
      return unknown();
  }
}

Session::Reply Session::query(std::string_view packet) {
  if (packet.starts_with("qSupported")) {
    return text(fmt::format("PacketSize={:x};qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;QStartNoAckMode+",
                            kMaximumPacket));
  }
  if (packet == "QStartNoAckMode") {
    acknowledges_ = false;
    return ok();
  }
  if (packet.starts_with("qXfer:features:read:target.xml:")) return features(packet.substr(31));
  if (packet == "qfThreadInfo") {
    std::string ids = "m";
    for (uint32_t i = 0; i < target_.vcpu_count(); ++i) ids += fmt::format("{}{:x}", i == 0 ? "" : ",", i + 1);
    return text(ids);
  }
  if (packet == "qsThreadInfo") return text("l");
  if (packet == "qC") return text(fmt::format("QC{:x}", current_ + 1));
  if (packet == "qAttached") return text("1");
  if (packet.starts_with("qThreadExtraInfo,")) {
    std::string_view id = packet.substr(17);
    const auto vcpu = take_thread(id);
    if (!vcpu) return error(kBadPacket);
    const std::string name = fmt::format("vCPU {}", *vcpu);
    return text(to_hex({reinterpret_cast<const uint8_t*>(name.data()), name.size()}));
  }
  if (packet.starts_with("qRcmd,")) return monitor(packet.substr(6));
  return unknown();
}

Session::Reply Session::features(std::string_view arguments) {
  const auto range = take_range(arguments);
  if (!range) return error(kBadPacket);
  const std::string xml = target_xml(architecture_);
  if (range->address >= xml.size()) return text("l");
  const uint64_t size = std::min<uint64_t>(range->size, kMaximumPacket / 2);
  const std::string piece = xml.substr(range->address, size);
  return text((range->address + piece.size() < xml.size() ? "m" : "l") + piece);
}

Session::Reply Session::read_registers() {
  const cpu::State state = target_.get_state(current_);
  std::string hex;
  for (const RegisterInfo& info : registers_of(architecture_)) hex += to_hex(read_register(info, state));
  return text(hex);
}

Session::Reply Session::write_registers(std::string_view hex) {
  const auto bytes = from_hex(hex);
  if (!bytes) return error(kBadPacket);
  cpu::State state = target_.get_state(current_);
  ByteSpan left = *bytes;
  for (const RegisterInfo& info : registers_of(architecture_)) {
    if (left.size() < info.size) return error(kBadPacket);
    write_register(info, left.first(info.size), state);
    left = left.subspan(info.size);
  }
  return target_.set_state(current_, state) ? ok() : error(kRefused);
}

Session::Reply Session::register_access(std::string_view packet) {
  const bool is_write = packet.front() == 'P';
  packet.remove_prefix(1);
  const auto number = take_hex(packet);
  const auto table = registers_of(architecture_);
  if (!number || *number >= table.size()) return error(kBadPacket);
  const RegisterInfo& info = table[*number];
  cpu::State state = target_.get_state(current_);
  if (!is_write) return text(to_hex(read_register(info, state)));
  if (!take(packet, '=')) return error(kBadPacket);
  const auto bytes = from_hex(packet);
  if (!bytes || bytes->size() != info.size) return error(kBadPacket);
  write_register(info, *bytes, state);
  return target_.set_state(current_, state) ? ok() : error(kRefused);
}

// As much as is mapped, which gdb takes for an answer; an error when not even the first byte is.
Session::Reply Session::read_memory(std::string_view arguments) {
  const auto range = take_range(arguments);
  if (!range || range->size > kMaximumMemory) return error(kBadPacket);
  std::vector<uint8_t> bytes(range->size);
  size_t done = 0;
  while (done < bytes.size()) {
    const uint64_t address = range->address + done;
    const size_t piece = std::min<size_t>(bytes.size() - done, kPageSize - address % kPageSize);
    if (!target_.read_memory(current_, address, MutableByteSpan(bytes).subspan(done, piece))) break;
    done += piece;
  }
  if (done == 0 && !bytes.empty()) return error(kBadAddress);
  return text(to_hex(ByteSpan(bytes).first(done)));
}

Session::Reply Session::write_memory(std::string_view arguments, bool binary) {
  const auto range = take_range(arguments);
  if (!range || !take(arguments, ':')) return error(kBadPacket);
  std::vector<uint8_t> bytes(arguments.begin(), arguments.end());
  if (!binary) {
    auto decoded = from_hex(arguments);
    if (!decoded) return error(kBadPacket);
    bytes = std::move(*decoded);
  }
  if (bytes.size() != range->size) return error(kBadPacket);
  return target_.write_memory(current_, range->address, bytes) ? ok() : error(kBadAddress);
}

// "Z0,ADDRESS,SIZE" to "Z4,...", and z to take one away.
Session::Reply Session::change_point(std::string_view packet) {
  const bool insert = packet.front() == 'Z';
  packet.remove_prefix(1);
  const auto kind = take_hex(packet);
  if (!kind || *kind > 4 || !take(packet, ',')) return unknown();
  const auto range = take_range(packet);
  if (!range) return error(kBadPacket);
  const bool is_watch = *kind >= 2;
  const uint64_t size = is_watch ? range->size : 1;
  if (size != 1 && size != 2 && size != 4 && size != 8) return error(kBadPacket);
  const Point point{static_cast<PointKind>(*kind), range->address, static_cast<uint8_t>(size)};
  const auto found = std::ranges::find(points_, point);
  if (!insert) {
    if (found != points_.end()) points_.erase(found);
    return ok();
  }
  if (found != points_.end()) return ok();
  if (points_.size() >= cpu::DebugRequest::kMaximumPoints) return error(kRefused);
  points_.push_back(point);
  return ok();
}

std::optional<uint32_t> Session::take_thread(std::string_view& id) {
  if (id.starts_with("-1")) {
    id.remove_prefix(2);
    return current_;
  }
  const auto number = take_hex(id);
  if (!number || *number > target_.vcpu_count()) return std::nullopt;
  return *number == 0 ? current_ : static_cast<uint32_t>(*number - 1);
}

Session::Reply Session::select_thread(std::string_view packet) {
  if (packet.empty()) return error(kBadPacket);
  const bool is_general = packet.front() == 'g';
  packet.remove_prefix(1);
  const auto vcpu = take_thread(packet);
  if (!vcpu) return error(kBadPacket);
  if (is_general) current_ = *vcpu;
  return ok();
}

// "s:1;c", "c", "s:2": the step of one vCPU, the others running beside it when a "c" names them all.
Session::Reply Session::continue_by(std::string_view actions) {
  std::optional<uint32_t> stepped;
  bool others_run = false;
  while (!actions.empty()) {
    const char action = actions.front();
    actions.remove_prefix(1);
    if (action == 'C' || action == 'S') take_hex(actions);
    uint32_t vcpu = current_;
    const bool named = take(actions, ':');
    if (named) {
      const auto taken = take_thread(actions);
      if (!taken) return error(kBadPacket);
      vcpu = *taken;
    }
    if (action == 's' || action == 'S') {
      if (!stepped) stepped = vcpu;
    } else if (action == 'c' || action == 'C') {
      others_run = true;
    } else {
      return error(kBadPacket);
    }
    if (!actions.empty() && !take(actions, ';')) return error(kBadPacket);
  }
  if (stepped && !others_run) return resume(stepped, stepped);
  return resume(stepped, std::nullopt);
}

Session::Reply Session::resume(std::optional<uint32_t> stepped, std::optional<uint32_t> only) {
  Target::Resume request{{}, stepped, only};
  watched_.clear();
  for (const Point& point : points_) {
    using Kind = cpu::DebugRequest::Point::Kind;
    const bool execute = point.kind == PointKind::kSoftware || point.kind == PointKind::kHardware;
    request.points.push_back({execute                           ? Kind::kExecute
                              : point.kind == PointKind::kWrite ? Kind::kWrite
                                                                : Kind::kReadWrite,
                              point.address, point.size});
    if (execute) continue;
    Watch watch{point.address, std::vector<uint8_t>(point.size)};
    target_.read_memory(current_, watch.address, watch.before);
    watched_.push_back(std::move(watch));
  }
  if (!target_.resume(request)) return error(kRefused);
  running_ = true;
  stepping_ = stepped.has_value();
  return {};
}

std::optional<std::string> Session::interrupt() {
  if (!running_) return std::nullopt;
  target_.interrupt();
  running_ = false;
  return stop_reply(kSigInt);
}

std::optional<std::string> Session::stopped(uint32_t vcpu) {
  if (!running_) return std::nullopt;
  running_ = false;
  current_ = vcpu;
  return stop_reply(kSigTrap, stop_detail());
}

// Why it stopped. Of several watchpoints the one whose bytes have changed is named; when none has, the first.
std::string Session::stop_detail() {
  const uint64_t rip = target_.get_state(current_).rip;
  for (const Watch& watch : watched_) {
    std::vector<uint8_t> now(watch.before.size());
    if (target_.read_memory(current_, watch.address, now) && now != watch.before) {
      return fmt::format("watch:{:x};", watch.address);
    }
  }
  for (const Point& point : points_) {
    if (point.address != rip) continue;
    if (point.kind == PointKind::kSoftware) return "swbreak:;";
    if (point.kind == PointKind::kHardware) return "hwbreak:;";
  }
  if (stepping_ || watched_.empty()) return {};
  const Point& first =
      *std::ranges::find_if(points_, [](const Point& point) { return point.kind >= PointKind::kWrite; });
  const char* const name = first.kind == PointKind::kWrite  ? "watch"
                           : first.kind == PointKind::kRead ? "rwatch"
                                                            : "awatch";
  return fmt::format("{}:{:x};", name, first.address);
}

std::string Session::stop_reply(int signal, std::string_view detail) const {
  return fmt::format("T{:02x}{}thread:{:x};", signal, detail, current_ + 1);
}

// "monitor COMMAND" of gdb. The answer is text for the user.
Session::Reply Session::monitor(std::string_view hex) {
  const auto bytes = from_hex(hex);
  if (!bytes) return error(kBadPacket);
  const std::string command(bytes->begin(), bytes->end());
  std::string answer = "monitor commands: reset, quit\n";
  if (command == "quit") {
    target_.quit();
    return {"OK", true};
  }
  if (command == "reset") {
    target_.reset();
    answer = "the VM is reset\n";
  }
  return text(to_hex({reinterpret_cast<const uint8_t*>(answer.data()), answer.size()}));
}

}  // namespace bulkhead::vmm::gdb

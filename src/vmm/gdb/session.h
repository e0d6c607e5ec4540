// One debugger's conversation: a packet in, an answer out. It knows the protocol and nothing of sockets, threads or the
// VM, which it reaches through Target; so it is tested without any of them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/vcpu.h"
#include "support/result.h"
#include "vmm/gdb/registers.h"

namespace bulkhead::vmm::gdb {

// What a debugger may do to a VM that it holds. vCPUs count from 0.
class Target {
 public:
  virtual ~Target() = default;
  [[nodiscard]] virtual uint32_t vcpu_count() = 0;
  virtual cpu::State get_state(uint32_t vcpu) = 0;
  virtual Result<> set_state(uint32_t vcpu, const cpu::State& state) = 0;
  // By linear address, as the vCPU's page tables are now; false when a byte is not mapped to RAM.
  virtual bool read_memory(uint32_t vcpu, uint64_t address, MutableByteSpan out) = 0;
  virtual bool write_memory(uint32_t vcpu, uint64_t address, ByteSpan in) = 0;
  // Runs until something calls Session::stopped(). points hold for all vCPUs; stepped executes one instruction; with
  // only, the other vCPUs stay where they are.
  struct Resume {
    std::vector<cpu::DebugRequest::Point> points;
    std::optional<uint32_t> stepped;
    std::optional<uint32_t> only;
  };
  virtual Result<> resume(const Resume& resume) = 0;
  // Comes to a stop without a debug event.
  virtual void interrupt() = 0;
  virtual void reset() = 0;
  virtual void quit() = 0;
};

class Session {
 public:
  explicit Session(Target& target);

  struct Reply {
    std::optional<std::string> packet;  // nothing: no answer now (the VM runs)
    bool close = false;
  };
  Reply handle(std::string_view packet);
  // The byte 3. A stop reply when the VM ran.
  std::optional<std::string> interrupt();
  // A vCPU met a debug event. A stop reply when the VM ran.
  std::optional<std::string> stopped(uint32_t vcpu);

  [[nodiscard]] bool running() const { return running_; }
  [[nodiscard]] bool acknowledges() const { return acknowledges_; }

 private:
  struct Watch {
    uint64_t address;
    std::vector<uint8_t> before;
  };
  enum class PointKind : uint8_t { kSoftware, kHardware, kWrite, kRead, kAccess };
  struct Point {
    PointKind kind;
    uint64_t address;
    uint8_t size;
    friend bool operator==(const Point&, const Point&) = default;
  };

  Reply query(std::string_view packet);
  Reply read_registers();
  Reply write_registers(std::string_view hex);
  Reply register_access(std::string_view packet);
  Reply read_memory(std::string_view arguments);
  Reply write_memory(std::string_view arguments, bool binary);
  Reply change_point(std::string_view packet);
  Reply select_thread(std::string_view packet);
  Reply continue_by(std::string_view actions);
  Reply resume(std::optional<uint32_t> stepped, std::optional<uint32_t> only);
  Reply monitor(std::string_view hex);
  Reply features(std::string_view arguments);
  [[nodiscard]] std::string stop_reply(int signal, std::string_view detail = {}) const;
  [[nodiscard]] std::string stop_detail();
  // A thread id ("1", "-1" and "0" for any) at the start of text; nothing when there is no such vCPU.
  std::optional<uint32_t> take_thread(std::string_view& text);

  Target& target_;
  Architecture architecture_;
  uint32_t current_ = 0;
  bool running_ = false;
  bool stepping_ = false;
  bool acknowledges_ = true;
  std::vector<Point> points_;
  std::vector<Watch> watched_;
};

}  // namespace bulkhead::vmm::gdb

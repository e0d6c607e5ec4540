#include "device/legacy/uart/uart.h"

#include <algorithm>

namespace bulkhead::device::legacy {
namespace {

enum Offset : uint16_t {
  kData = 0,             // RBR, THR; with DLAB the divisor's low byte
  kInterruptEnable = 1,  // with DLAB the divisor's high byte
  kIdentity = 2,         // IIR on reading, FCR on writing
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

constexpr uint8_t kEnableData = 1, kEnableTransmitter = 2, kEnableLine = 4, kEnableModem = 8, kEnableWritable = 0x0F;
constexpr uint8_t kFifoEnable = 1, kFifoClearReceiver = 2, kFifoKept = 0xC9;
constexpr std::array<size_t, 4> kTriggerLevels{1, 4, 8, 14};
constexpr uint8_t kDivisorLatch = 0x80;
constexpr uint8_t kLoop = 0x10, kModemControlWritable = 0x1F;

constexpr uint8_t kDataReady = 0x01, kOverrun = 0x02, kHoldingEmpty = 0x20, kTransmitterEmpty = 0x40;
// What a connected peer shows: DCD, DSR, CTS.
constexpr uint8_t kPeerReady = 0xB0;
constexpr uint8_t kRing = 0x40;

constexpr uint8_t kIdentityNone = 0x01, kIdentityModem = 0x00, kIdentityTransmitter = 0x02, kIdentityData = 0x04,
                  kIdentityLine = 0x06, kIdentityTimeout = 0x0C, kIdentityFifo = 0xC0;

constexpr uint8_t kPollingReads = 2;
constexpr size_t kChunkSize = 256;

}  // namespace

Uart::Uart(std::string name, IrqLine irq, console::ByteStream* stream)
    : name_(std::move(name)), stream_(stream), irq_(irq) {
  received_.reserve(kFifoSize);
  if (stream_ != nullptr) stream_->set_listener([this] { pump(); });
}

Uart::~Uart() {
  if (stream_ != nullptr) stream_->set_listener({});
}

// What was sent is on its way: it stays.
void Uart::reset() {
  {
    LockGuard lock(mutex_);
    registers_ = Registers{};
    received_.clear();
  }
  pump();
}

bool Uart::has_fifo() const {
  return (registers_.fifo_control & kFifoEnable) != 0;
}
bool Uart::is_looped() const {
  return (registers_.modem_control & kLoop) != 0;
}

// Input waits in the stream until the driver is there: interrupts on, or polling. Drivers clear the FIFO and read a
// byte away when they start, and what was typed before would be lost.
size_t Uart::receive_room() const {
  const bool wanted = (registers_.interrupt_enable & kEnableData) != 0 || registers_.status_polls >= kPollingReads;
  if (!wanted || is_looped()) return 0;
  const size_t capacity = has_fifo() ? kFifoSize : 1;
  return capacity - std::min(capacity, received_.size());
}

uint8_t Uart::line_status() const {
  uint8_t status = registers_.overrun ? kOverrun : 0;
  if (!received_.empty()) status |= kDataReady;
  if (to_send_.empty()) status |= kHoldingEmpty | kTransmitterEmpty;
  return status;
}

// In loopback DTR, RTS, OUT1 and OUT2 show as DSR, CTS, RI and DCD.
uint8_t Uart::modem_inputs() const {
  if (!is_looped()) return kPeerReady;
  const unsigned control = registers_.modem_control;
  return static_cast<uint8_t>((control & 1) << 5 | (control & 2) << 3 | (control & 4) << 4 | (control & 8) << 4);
}

// The character timeout comes at once: there is no baud rate to wait for a fuller FIFO by.
uint8_t Uart::interrupt_identity() const {
  const uint8_t enabled = registers_.interrupt_enable;
  if ((enabled & kEnableLine) != 0 && registers_.overrun) return kIdentityLine;
  if ((enabled & kEnableData) != 0 && !received_.empty()) {
    const bool full = !has_fifo() || received_.size() >= kTriggerLevels[registers_.fifo_control >> 6];
    return full ? kIdentityData : kIdentityTimeout;
  }
  if ((enabled & kEnableTransmitter) != 0 && registers_.transmitter_interrupt) return kIdentityTransmitter;
  if ((enabled & kEnableModem) != 0 && registers_.modem_changes != 0) return kIdentityModem;
  return kIdentityNone;
}

// The stream

void Uart::pump() {
  if (pump_callers_.fetch_add(1, std::memory_order_acq_rel) == 0) {
    uint32_t seen = 1;
    do {
      seen = pump_callers_.load(std::memory_order_acquire);
      while (pump_once()) {
      }
      bool changed = false;
      {
        LockGuard lock(mutex_);
        changed = irq_.want(interrupt_identity() != kIdentityNone);
      }
      if (changed) irq_.settle();
    } while (!pump_callers_.compare_exchange_strong(seen, 0, std::memory_order_acq_rel));
  }
}

bool Uart::pump_once() {
  if (stream_ == nullptr) {
    LockGuard lock(mutex_);
    if (to_send_.empty()) return false;
    to_send_.clear();
    registers_.transmitter_interrupt = true;
    return true;
  }
  std::array<uint8_t, kChunkSize> chunk;
  std::array<uint8_t, kFifoSize> input;
  size_t offered = 0, room = 0;
  {
    LockGuard lock(mutex_);
    offered = std::min(to_send_.size(), chunk.size());
    std::copy_n(to_send_.begin(), offered, chunk.begin());
    room = receive_room();
  }
  const size_t sent = offered == 0 ? 0 : std::min(stream_->write(ByteSpan(chunk).first(offered)), offered);
  const size_t received = room == 0 ? 0 : std::min(stream_->read(MutableByteSpan(input).first(room)), room);
  LockGuard lock(mutex_);
  if (sent != 0) {
    to_send_.erase(to_send_.begin(), to_send_.begin() + static_cast<ptrdiff_t>(std::min(sent, to_send_.size())));
    if (to_send_.empty()) registers_.transmitter_interrupt = true;
  }
  for (size_t i = 0; i < received; ++i) receive(input[i]);
  return sent != 0 || received != 0;
}

void Uart::transmit(uint8_t byte) {
  registers_.transmitter_interrupt = false;
  if (is_looped()) {
    receive(byte);
    registers_.transmitter_interrupt = true;
  } else if (to_send_.size() < kBacklogSize) {
    to_send_.push_back(byte);
  } else {
    dropped_count_.fetch_add(1, std::memory_order_relaxed);
  }
}

void Uart::receive(uint8_t byte) {
  if (received_.size() < (has_fifo() ? kFifoSize : 1)) {
    received_.push_back(byte);
  } else {
    registers_.overrun = true;
  }
}

// Registers

uint8_t Uart::read_byte(uint16_t offset) {
  if (offset >= kRangeSize) return 0xFF;
  bool asks_for_input = false;
  {
    LockGuard lock(mutex_);
    const uint8_t polls = registers_.status_polls;
    registers_.status_polls = offset == kLineStatus ? static_cast<uint8_t>(std::min(polls + 1, 0xFF)) : 0;
    asks_for_input = offset == kLineStatus && receive_room() != 0;
  }
  if (asks_for_input) pump();
  uint8_t value = 0;
  bool changed = false;
  {
    LockGuard lock(mutex_);
    value = read_register(offset);
    changed = irq_.want(interrupt_identity() != kIdentityNone);
  }
  if (changed) irq_.settle();
  // There is room for more now.
  if (offset == kData) pump();
  return value;
}

uint8_t Uart::read_register(uint16_t offset) {
  const bool latch = (registers_.line_control & kDivisorLatch) != 0;
  switch (offset) {
    case kData: {
      if (latch) return static_cast<uint8_t>(registers_.divisor);
      if (received_.empty()) return 0;
      const uint8_t byte = received_.front();
      received_.erase(received_.begin());
      return byte;
    }
    case kInterruptEnable:
      return latch ? static_cast<uint8_t>(registers_.divisor >> 8) : registers_.interrupt_enable;
    case kIdentity: {
      const uint8_t identity = interrupt_identity();
      if (identity == kIdentityTransmitter) registers_.transmitter_interrupt = false;
      return identity | (has_fifo() ? kIdentityFifo : 0);
    }
    case kLineControl:
      return registers_.line_control;
    case kModemControl:
      return registers_.modem_control;
    case kLineStatus: {
      const uint8_t status = line_status();
      registers_.overrun = false;
      return status;
    }
    case kModemStatus:
      return modem_inputs() | std::exchange(registers_.modem_changes, uint8_t{0});
    default:
      return registers_.scratch;
  }
}

void Uart::write_byte(uint16_t offset, uint8_t value) {
  if (offset >= kRangeSize) return;
  {
    LockGuard lock(mutex_);
    registers_.status_polls = 0;
    write_register(offset, value);
  }
  pump();
}

void Uart::write_register(uint16_t offset, uint8_t value) {
  const bool latch = (registers_.line_control & kDivisorLatch) != 0;
  switch (offset) {
    case kData:
      if (latch) {
        registers_.divisor = static_cast<uint16_t>((registers_.divisor & 0xFF00) | value);
      } else {
        transmit(value);
      }
      return;
    case kInterruptEnable:
      if (latch) {
        registers_.divisor = static_cast<uint16_t>((registers_.divisor & 0x00FF) | value << 8);
        return;
      }
      // Enabling the transmitter's interrupt while there is room raises it.
      if ((value & ~registers_.interrupt_enable & kEnableTransmitter) != 0 && to_send_.empty()) {
        registers_.transmitter_interrupt = true;
      }
      registers_.interrupt_enable = value & kEnableWritable;
      return;
    case kIdentity:
      write_fifo_control(value);
      return;
    case kLineControl:
      registers_.line_control = value;
      return;
    case kModemControl:
      write_modem_control(value);
      return;
    case kScratch:
      registers_.scratch = value;
      return;
    default:
      return;
  }
}

// Clearing the transmitter's FIFO takes nothing back: on a line without a baud rate it has been sent.
void Uart::write_fifo_control(uint8_t value) {
  const bool toggles = ((value ^ registers_.fifo_control) & kFifoEnable) != 0;
  if (toggles || (value & kFifoClearReceiver) != 0) received_.clear();
  registers_.fifo_control = (value & kFifoEnable) != 0 ? value & kFifoKept : 0;
}

void Uart::write_modem_control(uint8_t value) {
  const uint8_t before = modem_inputs();
  registers_.modem_control = value & kModemControlWritable;
  const uint8_t after = modem_inputs();
  // The ring indicator counts only when it ends.
  const uint8_t changed = static_cast<uint8_t>(((before ^ after) & ~kRing) | (before & ~after & kRing));
  registers_.modem_changes |= changed >> 4;
}

// Saved state

void Uart::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  const Registers& r = registers_;
  writer.put("interrupt_enable", r.interrupt_enable).put("fifo_control", r.fifo_control);
  writer.put("line_control", r.line_control).put("modem_control", r.modem_control).put("scratch", r.scratch);
  writer.put("divisor", r.divisor).put("overrun", r.overrun).put("transmitter_interrupt", r.transmitter_interrupt);
  writer.put("modem_changes", r.modem_changes).put("status_polls", r.status_polls);
  writer.put_bytes("received", received_).put_bytes("to_send", to_send_);
}

Result<> Uart::restore_state(const StateReader& reader) {
  const auto byte = [&reader](std::string_view field, uint8_t maximum = 0xFF) -> Result<uint8_t> {
    return static_cast<uint8_t>(TRY(reader.get(field, maximum)));
  };
  Registers r;
  r.interrupt_enable = TRY(byte("interrupt_enable", kEnableWritable));
  r.fifo_control = TRY(byte("fifo_control")) & kFifoKept;
  r.line_control = TRY(byte("line_control"));
  r.modem_control = TRY(byte("modem_control", kModemControlWritable));
  r.scratch = TRY(byte("scratch"));
  r.divisor = static_cast<uint16_t>(TRY(reader.get("divisor", 0xFFFF)));
  r.overrun = TRY(reader.get_flag("overrun"));
  r.transmitter_interrupt = TRY(reader.get_flag("transmitter_interrupt"));
  r.modem_changes = TRY(byte("modem_changes", 0x0F));
  r.status_polls = TRY(byte("status_polls"));
  const size_t capacity = (r.fifo_control & kFifoEnable) != 0 ? kFifoSize : 1;
  const ByteSpan received = TRY(reader.get_bytes_up_to("received", capacity));
  const ByteSpan to_send = TRY(reader.get_bytes_up_to("to_send", kBacklogSize));
  {
    LockGuard lock(mutex_);
    registers_ = r;
    received_.assign(received.begin(), received.end());
    to_send_.assign(to_send.begin(), to_send.end());
  }
  pump();
  return {};
}

}  // namespace bulkhead::device::legacy

#include "device/legacy/i8042/i8042.h"

#include <algorithm>

namespace bulkhead::device::legacy {
namespace {

// Command byte.
constexpr uint8_t kKeyboardInterrupt = 0x01, kSystemFlag = 0x04, kKeyboardDisabled = 0x10, kAuxiliaryDisabled = 0x20,
                  kTranslate = 0x40;
constexpr uint8_t kCommandByteAtPowerOn = kKeyboardInterrupt | kSystemFlag | kAuxiliaryDisabled | kTranslate;

// Status.
constexpr uint8_t kOutputFull = 0x01, kStatusSystem = 0x04, kLastWasCommand = 0x08, kNotLocked = 0x10;

// Output port: bit 0 low resets, bit 1 is the A20 gate, which stays open on this board whatever it shows.
constexpr uint8_t kNoReset = 0x01, kA20 = 0x02, kOutputPortAtPowerOn = 0xC0 | kNoReset | kA20;

enum ControllerCommand : uint8_t {
  kReadMemory = 0x20,   // to 0x3F
  kWriteMemory = 0x60,  // to 0x7F
  kDisableAuxiliary = 0xA7,
  kEnableAuxiliary = 0xA8,
  kTestAuxiliary = 0xA9,
  kSelfTest = 0xAA,
  kTestKeyboard = 0xAB,
  kDisableKeyboard = 0xAD,
  kEnableKeyboard = 0xAE,
  kReadInputPort = 0xC0,
  kReadOutputPort = 0xD0,
  kWriteOutputPort = 0xD1,
  kEchoKeyboard = 0xD2,
  kEchoAuxiliary = 0xD3,
  kWriteAuxiliary = 0xD4,
  kPulseOutput = 0xF0,  // to 0xFF: pulses low the output port's bits that are 0 in the lower half
};

constexpr uint8_t kSelfTestPassed = 0x55, kLineGood = 0x00, kClockStuckLow = 0x01;

enum KeyboardCommand : uint8_t {
  kSetLeds = 0xED,
  kEcho = 0xEE,
  kScanSet = 0xF0,
  kIdentify = 0xF2,
  kTypematic = 0xF3,
  kEnable = 0xF4,
  kDisable = 0xF5,
  kDefaults = 0xF6,
  kAllKeysFirst = 0xF7,  // to 0xFA: modes of all keys
  kAllKeysLast = 0xFA,
  kResend = 0xFE,
  kKeyboardReset = 0xFF,
};

constexpr uint8_t kAcknowledge = 0xFA, kTestPassed = 0xAA, kAskAgain = 0xFE;
// An MF2 keyboard; the controller's translation turns the second byte as it does scan codes.
constexpr uint8_t kIdentity1 = 0xAB, kIdentity2 = 0x83, kIdentity2Translated = 0x41;

}  // namespace

I8042::I8042(IrqLine keyboard_irq, PowerControl& power) : power_(power), irq_(keyboard_irq) {
  I8042::reset();
}

void I8042::reset() {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    registers_ = Registers{};
    registers_.memory[0] = kCommandByteAtPowerOn;
    registers_.output_port = kOutputPortAtPowerOn;
    answers_.clear();
    keyboard_queue_.clear();
    changed = fill_output();
  }
  if (changed) irq_.settle();
}

void I8042::answer(uint8_t byte) {
  if (answers_.size() < kQueueSize) answers_.push_back(byte);
}

void I8042::keyboard_send(uint8_t byte) {
  registers_.last_sent = byte;
  if (keyboard_queue_.size() < kQueueSize) keyboard_queue_.push_back(byte);
}

bool I8042::fill_output() {
  Registers& r = registers_;
  if (!r.output_full) {
    std::deque<uint8_t>* source = nullptr;
    if (!answers_.empty()) {
      source = &answers_;
    } else if (!keyboard_queue_.empty() && (r.memory[0] & kKeyboardDisabled) == 0) {
      source = &keyboard_queue_;
    }
    if (source != nullptr) {
      r.last_output = source->front();
      source->pop_front();
      r.output_full = true;
    }
  }
  return irq_.want(r.output_full && (r.memory[0] & kKeyboardInterrupt) != 0);
}

uint8_t I8042::read_data() {
  uint8_t value = 0;
  bool fell = false, rose = false;
  {
    LockGuard lock(mutex_);
    value = registers_.last_output;
    registers_.output_full = false;
    fell = irq_.want(false);
  }
  // Each byte has an edge of its own.
  if (fell) irq_.settle();
  {
    LockGuard lock(mutex_);
    rose = fill_output();
  }
  if (rose) irq_.settle();
  return value;
}

uint8_t I8042::read_status() const {
  LockGuard lock(mutex_);
  return static_cast<uint8_t>(kNotLocked | (registers_.output_full ? kOutputFull : 0) |
                              ((registers_.memory[0] & kSystemFlag) != 0 ? kStatusSystem : 0) |
                              (registers_.last_was_command ? kLastWasCommand : 0));
}

void I8042::write_command(uint8_t value) {
  bool changed = false, resets = false;
  {
    LockGuard lock(mutex_);
    registers_.last_was_command = true;
    registers_.awaited_command = 0;
    resets = carry_out(value);
    changed = fill_output();
  }
  if (changed) irq_.settle();
  if (resets) power_.request_reset();
}

void I8042::write_data(uint8_t value) {
  bool changed = false, resets = false;
  {
    LockGuard lock(mutex_);
    registers_.last_was_command = false;
    if (registers_.awaited_command != 0) {
      resets = carry_out_with(std::exchange(registers_.awaited_command, uint8_t{0}), value);
    } else {
      registers_.memory[0] &= static_cast<uint8_t>(~kKeyboardDisabled);
      keyboard_receive(value);
    }
    changed = fill_output();
  }
  if (changed) irq_.settle();
  if (resets) power_.request_reset();
}

bool I8042::carry_out(uint8_t command) {
  Registers& r = registers_;
  if (command >= kReadMemory && command < kReadMemory + kMemorySize) {
    answer(r.memory[command - kReadMemory]);
    return false;
  }
  if (command >= kWriteMemory && command < kWriteMemory + kMemorySize) {
    r.awaited_command = command;
    return false;
  }
  if (command >= kPulseOutput) return (command & kNoReset) == 0;
  switch (command) {
    case kDisableAuxiliary:
      r.memory[0] |= kAuxiliaryDisabled;
      break;
    case kEnableAuxiliary:
      r.memory[0] &= static_cast<uint8_t>(~kAuxiliaryDisabled);
      break;
    case kTestAuxiliary:
      answer(kClockStuckLow);
      break;
    case kSelfTest:
      r.memory[0] |= kSystemFlag;
      answer(kSelfTestPassed);
      break;
    case kTestKeyboard:
      answer(kLineGood);
      break;
    case kDisableKeyboard:
      r.memory[0] |= kKeyboardDisabled;
      break;
    case kEnableKeyboard:
      r.memory[0] &= static_cast<uint8_t>(~kKeyboardDisabled);
      break;
    case kReadInputPort:
      answer(0x80);
      break;  // not locked
    case kReadOutputPort:
      answer(r.output_port);
      break;
    case kWriteOutputPort:
    case kEchoKeyboard:
    case kEchoAuxiliary:
    case kWriteAuxiliary:
      r.awaited_command = command;
      break;
    default:
      break;
  }
  return false;
}

bool I8042::carry_out_with(uint8_t command, uint8_t byte) {
  switch (command) {
    case kWriteOutputPort:
      registers_.output_port = byte;
      return (byte & kNoReset) == 0;
    // Without an auxiliary port its echo comes back as the keyboard's, by which drivers see that there is none.
    case kEchoKeyboard:
    case kEchoAuxiliary:
      answer(byte);
      return false;
    case kWriteAuxiliary:
      return false;
    default:
      registers_.memory[command % kMemorySize] = byte;
      return false;
  }
}

void I8042::keyboard_receive(uint8_t byte) {
  Registers& r = registers_;
  const uint8_t awaited = std::exchange(r.awaited_keyboard, uint8_t{0});
  if (awaited == kScanSet && byte == 0) {
    keyboard_send(kAcknowledge);
    keyboard_send(r.scan_set);
    return;
  }
  if (awaited != 0 && byte < kSetLeds) {
    if (awaited == kScanSet && byte <= 3) r.scan_set = byte;
    keyboard_send(kAcknowledge);
    return;
  }
  switch (byte) {
    case kEcho:
      keyboard_send(kEcho);
      return;
    case kResend:
      keyboard_send(r.last_sent);
      return;
    case kSetLeds:
    case kScanSet:
    case kTypematic:
      r.awaited_keyboard = byte;
      keyboard_send(kAcknowledge);
      return;
    case kIdentify:
      keyboard_send(kAcknowledge);
      keyboard_send(kIdentity1);
      keyboard_send((r.memory[0] & kTranslate) != 0 ? kIdentity2Translated : kIdentity2);
      return;
    case kKeyboardReset:
      r.scan_set = 2;
      keyboard_queue_.clear();
      keyboard_send(kAcknowledge);
      keyboard_send(kTestPassed);
      return;
    case kDisable:
    case kDefaults:
      r.scan_set = 2;
      keyboard_send(kAcknowledge);
      return;
    case kEnable:
      keyboard_send(kAcknowledge);
      return;
    default:
      keyboard_send(byte >= kAllKeysFirst && byte <= kAllKeysLast ? kAcknowledge : kAskAgain);
      return;
  }
}

void I8042::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  const Registers& r = registers_;
  writer.put_bytes("memory", r.memory).put("output_port", r.output_port);
  writer.put("last_output", r.last_output).put("output_full", r.output_full);
  writer.put("last_was_command", r.last_was_command).put("awaited_command", r.awaited_command);
  writer.put("awaited_keyboard", r.awaited_keyboard).put("scan_set", r.scan_set).put("last_sent", r.last_sent);
  writer.put_bytes("answers", std::vector<uint8_t>(answers_.begin(), answers_.end()));
  writer.put_bytes("keyboard_queue", std::vector<uint8_t>(keyboard_queue_.begin(), keyboard_queue_.end()));
}

Result<> I8042::restore_state(const StateReader& reader) {
  Registers r;
  std::ranges::copy(TRY(reader.get_bytes("memory", kMemorySize)), r.memory.begin());
  r.output_port = static_cast<uint8_t>(TRY(reader.get("output_port", 0xFF)));
  r.last_output = static_cast<uint8_t>(TRY(reader.get("last_output", 0xFF)));
  r.output_full = TRY(reader.get_flag("output_full"));
  r.last_was_command = TRY(reader.get_flag("last_was_command"));
  r.awaited_command = static_cast<uint8_t>(TRY(reader.get("awaited_command", 0xFF)));
  r.awaited_keyboard = static_cast<uint8_t>(TRY(reader.get("awaited_keyboard", 0xFF)));
  r.scan_set = static_cast<uint8_t>(TRY(reader.get("scan_set", 3)));
  r.last_sent = static_cast<uint8_t>(TRY(reader.get("last_sent", 0xFF)));
  const ByteSpan answers = TRY(reader.get_bytes_up_to("answers", kQueueSize));
  const ByteSpan keyboard_queue = TRY(reader.get_bytes_up_to("keyboard_queue", kQueueSize));
  bool changed = false;
  {
    LockGuard lock(mutex_);
    registers_ = r;
    answers_.assign(answers.begin(), answers.end());
    keyboard_queue_.assign(keyboard_queue.begin(), keyboard_queue.end());
    changed = fill_output();
  }
  if (changed) irq_.settle();
  return {};
}

}  // namespace bulkhead::device::legacy

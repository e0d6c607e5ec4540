// Ctrl-] at the user's terminal: the key after it is a command to Bulkhead and not input of the guest.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "support/bytes.h"

namespace bulkhead::console {

enum class TerminalCommand { kHelp, kQuit, kPowerButton, kReset, kContinue };

class EscapeKey {
 public:
  static constexpr uint8_t kKey = 0x1D;  // Ctrl-]
  static constexpr std::string_view kHelp =
      "^] (Ctrl and ]) and then q ends the VM, p presses its power button, r resets it, c continues it when paused, ] "
      "sends ^] to the guest";

  explicit EscapeKey(std::function<void(TerminalCommand)> on_command) : on_command_(std::move(on_command)) {}

  // Takes the key and its command out of bytes, wherever a read cut them; returns how many leading bytes remain.
  size_t filter(MutableByteSpan bytes) {
    size_t kept = 0;
    for (const uint8_t byte : bytes) {
      if (!escaped_) {
        escaped_ = byte == kKey;
        if (!escaped_) bytes[kept++] = byte;
        continue;
      }
      escaped_ = false;
      switch (byte) {
        case 'q':
        case 'x':
          on_command_(TerminalCommand::kQuit);
          break;
        case 'p':
          on_command_(TerminalCommand::kPowerButton);
          break;
        case 'r':
          on_command_(TerminalCommand::kReset);
          break;
        case 'c':
          on_command_(TerminalCommand::kContinue);
          break;
        case ']':
        case kKey:
          bytes[kept++] = kKey;
          break;
        default:
          on_command_(TerminalCommand::kHelp);
          break;
      }
    }
    return kept;
  }

 private:
  std::function<void(TerminalCommand)> on_command_;
  bool escaped_ = false;
};

}  // namespace bulkhead::console

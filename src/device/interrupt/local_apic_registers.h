// Register numbers and bits of the local APIC (Intel SDM 3, tables 11-1 and 11-6). A number is the offset in the xAPIC
// page divided by 16, which is also the x2APIC MSR minus 0x800. Private to local_apic*.cc and their tests.
#pragma once

#include <cstdint>

#include "device/interrupt/apic_message.h"

namespace bulkhead::device::interrupt {

enum ApicRegister : uint32_t {
  kRegisterId = 0x02,
  kRegisterVersion = 0x03,
  kRegisterTaskPriority = 0x08,
  kRegisterArbitrationPriority = 0x09,
  kRegisterProcessorPriority = 0x0A,
  kRegisterEndOfInterrupt = 0x0B,
  kRegisterRemoteRead = 0x0C,
  kRegisterLogicalDestination = 0x0D,
  kRegisterDestinationFormat = 0x0E,
  kRegisterSpurious = 0x0F,
  kRegisterInService = 0x10,
  kRegisterTriggerMode = 0x18,
  kRegisterRequested = 0x20,
  kRegisterErrorStatus = 0x28,
  kRegisterCommand = 0x30,
  kRegisterCommandHigh = 0x31,
  kRegisterLocalVectors = 0x32,
  kRegisterInitialCount = 0x38,
  kRegisterCurrentCount = 0x39,
  kRegisterDivide = 0x3E,
  kRegisterSelfIpi = 0x3F,
  kRegisterCount = 0x40,
};

inline constexpr uint32_t kMsrApicBase = 0x1B;
inline constexpr uint32_t kMsrTscDeadline = 0x6E0;
inline constexpr uint32_t kMsrX2ApicFirst = 0x800;

inline constexpr uint64_t kBaseBootstrap = 1u << 8;
inline constexpr uint64_t kBaseX2Apic = 1u << 10;
inline constexpr uint64_t kBaseEnable = 1u << 11;

// An integrated APIC with six local vectors.
inline constexpr uint32_t kVersionValue = 0x00050014;

inline constexpr uint32_t kSpuriousEnable = 1u << 8;
inline constexpr uint32_t kSpuriousWritable = 0x3FF;

inline constexpr uint32_t kLvtModeShift = 8;
inline constexpr uint32_t kLvtRemoteIrr = 1u << 14;
inline constexpr uint32_t kLvtLevel = 1u << 15;
inline constexpr uint32_t kLvtMasked = 1u << 16;
inline constexpr uint32_t kLvtTimerModeShift = 17;
// Timer, thermal, performance, LINT0, LINT1, error.
inline constexpr uint32_t kLvtWritable[] = {0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF};
inline constexpr uint32_t kLvtReadOnly = 1u << 12 | kLvtRemoteIrr;
[[nodiscard]] constexpr DeliveryMode lvt_mode(uint32_t entry) {
  return static_cast<DeliveryMode>(entry >> kLvtModeShift & 7);
}

inline constexpr uint32_t kCommandWritable = 0x000CCFFF & ~(1u << 12);
inline constexpr uint32_t kCommandStatus = 1u << 12;  // always idle here
inline constexpr uint32_t kCommandAssert = 1u << 14;

inline constexpr uint8_t kErrorSentIllegalVector = 1u << 5;
inline constexpr uint8_t kErrorReceivedIllegalVector = 1u << 6;
inline constexpr uint8_t kErrorIllegalRegister = 1u << 7;

inline constexpr uint8_t kFirstLegalVector = 16;
inline constexpr uint32_t kDivideWritable = 0xB;

}  // namespace bulkhead::device::interrupt

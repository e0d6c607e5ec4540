#include "device/interrupt/local_apic.h"

#include <gtest/gtest.h>

#include "device/interrupt/local_apic_registers.h"
#include "device/test_wires.h"
#include "support/time/fake_clock.h"

namespace bulkhead::device::interrupt {
namespace {

constexpr uint64_t kTscHz = 2'000'000'000;

struct FixedVector final : ExternalVectorSource {
  uint8_t acknowledge() override {
    ++count;
    return 0x38;
  }
  int count = 0;
};

struct RecordedEnds final : EndOfInterruptReceiver {
  void end_of_interrupt(uint8_t vector) override { vectors.push_back(vector); }
  std::vector<uint8_t> vectors;
};

// A bus with APICs 0 to 3, the first the bootstrap processor's.
class LocalApicTest : public testing::Test {
 protected:
  LocalApicTest() {
    bus_.set_end_of_interrupt_receiver(&ends_);
    for (uint32_t id = 0; id < 4; ++id) {
      const auto role = id == 0 ? LocalApic::Role::kBootstrap : LocalApic::Role::kApplication;
      apics_[id] = std::make_unique<LocalApic>(id, role, bus_, pins_[id], clock_, id == 0 ? &pic_ : nullptr);
    }
  }
  LocalApic& apic(uint32_t id = 0) { return *apics_[id]; }

  uint32_t read(uint32_t number, uint32_t id = 0) {
    uint32_t value = 0;
    apic(id).read_mmio(number * 16, as_mutable_bytes(value));
    return value;
  }
  void write(uint32_t number, uint32_t value, uint32_t id = 0) { apic(id).write_mmio(number * 16, as_bytes(value)); }
  void enable_all() {
    for (uint32_t id = 0; id < 4; ++id) write(kRegisterSpurious, 0x1FF, id);
  }
  void to_x2apic(uint32_t id) {
    const uint64_t base = *apic(id).read_msr(kMsrApicBase);
    ASSERT_TRUE(apic(id).write_msr(kMsrApicBase, base | kBaseX2Apic));
  }
  void send_command(uint32_t low, uint8_t destination = 0, uint32_t from = 0) {
    write(kRegisterCommandHigh, uint32_t{destination} << 24, from);
    write(kRegisterCommand, low, from);
  }
  uint32_t local_vector(unsigned entry) { return kRegisterLocalVectors + entry; }

  FakeClock clock_{kTscHz};
  ApicBus bus_;
  RecordedEnds ends_;
  FixedVector pic_;
  std::array<RecordedPins, 4> pins_;
  std::array<std::unique_ptr<LocalApic>, 4> apics_;
};

TEST_F(LocalApicTest, DeliversTheHighestVectorFirstAndNestsByClass) {
  enable_all();
  apic().accept({.vector = 0x31});
  apic().accept({.vector = 0x52});
  EXPECT_TRUE(pins_[0].interrupt_request);
  EXPECT_EQ(apic().acknowledge(), 0x52);
  EXPECT_FALSE(pins_[0].interrupt_request) << "0x31 is below the class in service";
  EXPECT_EQ(apic().acknowledge(), std::nullopt);
  EXPECT_EQ(read(kRegisterProcessorPriority), 0x50u);
  apic().accept({.vector = 0x5F});
  EXPECT_FALSE(apic().interrupt_pending()) << "same class as the one in service";
  apic().accept({.vector = 0x60});
  EXPECT_EQ(apic().acknowledge(), 0x60);
  write(kRegisterEndOfInterrupt, 0);
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_EQ(apic().acknowledge(), 0x5F);
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_EQ(apic().acknowledge(), 0x31);
}

TEST_F(LocalApicTest, HoldsBackWhatTheTaskPriorityForbids) {
  enable_all();
  apic().write_task_priority(4);
  EXPECT_EQ(read(kRegisterTaskPriority), 0x40u);
  apic().accept({.vector = 0x4F});
  EXPECT_FALSE(pins_[0].interrupt_request);
  apic().write_task_priority(3);
  EXPECT_TRUE(pins_[0].interrupt_request);
  write(kRegisterTaskPriority, 0x45);
  EXPECT_EQ(apic().read_task_priority(), 4);
  EXPECT_EQ(apic().acknowledge(), std::nullopt) << "the request went away before the INTA cycle";
}

TEST_F(LocalApicTest, BroadcastsTheEndOfLevelTriggeredInterruptsOnly) {
  enable_all();
  apic().accept({.vector = 0x41, .trigger = TriggerMode::kLevel});
  apic().accept({.vector = 0x51});
  EXPECT_EQ(read(kRegisterTriggerMode + 2), 1u << 1);
  apic().acknowledge();
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_TRUE(ends_.vectors.empty());
  apic().acknowledge();
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_EQ(ends_.vectors, std::vector<uint8_t>{0x41});
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_EQ(ends_.vectors.size(), 1u) << "an end without an interrupt in service does nothing";
}

TEST_F(LocalApicTest, DropsFixedInterruptsWhileSoftwareDisabledButKeepsNmiInitAndSipi) {
  apic(1).accept({.vector = 0x41});
  EXPECT_FALSE(pins_[1].interrupt_request);
  apic(1).accept({.mode = DeliveryMode::kNmi});
  apic(1).accept({.mode = DeliveryMode::kInit});
  apic(1).accept({.vector = 0x9A, .mode = DeliveryMode::kStartUp});
  EXPECT_EQ(pins_[1].nmi_count, 1);
  EXPECT_EQ(pins_[1].init_count, 1);
  EXPECT_EQ(pins_[1].sipi_vectors, std::vector<uint8_t>{0x9A});
}

TEST_F(LocalApicTest, SoftwareDisablingMasksTheLocalVectorsAndKeepsWhatIsPending) {
  enable_all();
  write(local_vector(0), 0x40);
  apic().accept({.vector = 0x55});
  write(kRegisterSpurious, 0xFF);
  EXPECT_EQ(read(local_vector(0)), 0x10040u);
  write(local_vector(0), 0x40);
  EXPECT_EQ(read(local_vector(0)), 0x10040u) << "the mask cannot be cleared while disabled";
  EXPECT_EQ(apic().acknowledge(), 0x55);
}

TEST_F(LocalApicTest, StartsOtherProcessorsByInitAndStartUp) {
  enable_all();
  send_command(0xC500, 2);  // INIT, level, assert
  send_command(0x8500, 2);  // its de-assert
  send_command(0x4609, 2);
  EXPECT_EQ(pins_[2].init_count, 1);
  EXPECT_EQ(pins_[2].sipi_vectors, std::vector<uint8_t>{0x09});
  EXPECT_EQ(read(kRegisterSpurious, 2), 0xFFu) << "INIT resets the APIC";
  EXPECT_EQ(pins_[1].init_count, 0);
}

TEST_F(LocalApicTest, ShorthandsReachSelfAllAndAllOthers) {
  enable_all();
  send_command(0x40000 | 0x40);
  EXPECT_EQ(apic(0).acknowledge(), 0x40);
  EXPECT_FALSE(apic(1).interrupt_pending());
  send_command(0xC0000 | 0x61);
  EXPECT_FALSE(apic(0).interrupt_pending());
  for (uint32_t id = 1; id < 4; ++id) EXPECT_EQ(apic(id).acknowledge(), 0x61);
  send_command(0x80000 | 0x72);
  for (uint32_t id = 0; id < 4; ++id) EXPECT_EQ(apic(id).acknowledge(), 0x72);
}

TEST_F(LocalApicTest, FlatLogicalDestinationsAreABitMask) {
  enable_all();
  for (uint32_t id = 0; id < 4; ++id) write(kRegisterLogicalDestination, 1u << (24 + id), id);
  send_command(0x4850, 0b1010);
  EXPECT_FALSE(apic(0).interrupt_pending());
  EXPECT_TRUE(apic(1).interrupt_pending());
  EXPECT_FALSE(apic(2).interrupt_pending());
  EXPECT_TRUE(apic(3).interrupt_pending());
}

TEST_F(LocalApicTest, ClusterLogicalDestinationsNameAClusterAndItsMembers) {
  enable_all();
  for (uint32_t id = 0; id < 4; ++id) {
    write(kRegisterDestinationFormat, 0x0FFFFFFF, id);
    write(kRegisterLogicalDestination, ((id / 2) << 4 | 1u << (id % 2)) << 24, id);
  }
  send_command(0x4850, 0x12);
  EXPECT_TRUE(apic(3).interrupt_pending());
  EXPECT_FALSE(apic(1).interrupt_pending());
  send_command(0x4850, 0xF1);
  EXPECT_TRUE(apic(0).interrupt_pending());
  EXPECT_TRUE(apic(2).interrupt_pending());
  EXPECT_FALSE(apic(1).interrupt_pending());
}

TEST_F(LocalApicTest, X2ApicLogicalIdsAreDerivedFromTheId) {
  for (uint32_t id = 0; id < 4; ++id) to_x2apic(id);
  for (uint32_t id = 0; id < 4; ++id) ASSERT_TRUE(apic(id).write_msr(0x80F, 0x1FF));
  EXPECT_EQ(apic(3).read_msr(0x80D), 8u);
  EXPECT_TRUE(apic(0).write_msr(0x830, uint64_t{0b0110} << 32 | 0x4850));
  EXPECT_TRUE(apic(1).interrupt_pending());
  EXPECT_TRUE(apic(2).interrupt_pending());
  EXPECT_FALSE(apic(3).interrupt_pending());
  EXPECT_TRUE(apic(0).write_msr(0x830, uint64_t{0xFFFFFFFF} << 32 | 0x4051));
  EXPECT_TRUE(apic(3).interrupt_pending());
}

TEST_F(LocalApicTest, LowestPriorityGoesToTheLeastBusyAndTiesSpread) {
  enable_all();
  for (uint32_t id = 0; id < 4; ++id) write(kRegisterLogicalDestination, 1u << (24 + id), id);
  apic(0).write_task_priority(2);
  apic(1).write_task_priority(2);
  bus_.send_message(
      make_message(0x0F, DestinationMode::kLogical, {.vector = 0x70, .mode = DeliveryMode::kLowestPriority}));
  bus_.send_message(
      make_message(0x0F, DestinationMode::kLogical, {.vector = 0x71, .mode = DeliveryMode::kLowestPriority}));
  EXPECT_FALSE(apic(0).interrupt_pending());
  EXPECT_FALSE(apic(1).interrupt_pending());
  EXPECT_EQ(apic(2).acknowledge(), 0x70);
  EXPECT_EQ(apic(3).acknowledge(), 0x71);
}

TEST_F(LocalApicTest, TakesMessagesByPhysicalIdAndIgnoresForeignAddresses) {
  enable_all();
  bus_.send_message({.address = 0xFEE02000, .data = 0x4045});
  bus_.send_message({.address = 0xFED02000, .data = 0x4046});
  bus_.send_message({.address = 0xFEE09000, .data = 0x4047});
  EXPECT_EQ(apic(2).acknowledge(), 0x45);
  EXPECT_FALSE(apic(2).interrupt_pending());
  bus_.send_message({.address = 0xFEEFF000, .data = 0x4058});
  for (uint32_t id = 0; id < 4; ++id) EXPECT_TRUE(apic(id).interrupt_pending());
}

TEST_F(LocalApicTest, TakesThePicsVectorThroughLint0InExtIntMode) {
  EXPECT_EQ(read(local_vector(3)), 0x700u) << "virtual wire mode at power-on";
  apic().set_irq(LocalApic::kLint0, true);
  EXPECT_TRUE(pins_[0].interrupt_request);
  EXPECT_EQ(apic().acknowledge(), 0x38);
  EXPECT_EQ(pic_.count, 1);
  apic().set_irq(LocalApic::kLint0, false);
  EXPECT_FALSE(pins_[0].interrupt_request);
  write(kRegisterSpurious, 0x1FF);
  write(local_vector(3), 0x10700);
  apic().set_irq(LocalApic::kLint0, true);
  EXPECT_FALSE(pins_[0].interrupt_request);
}

TEST_F(LocalApicTest, Lint1RaisesAnNmiOnItsEdge) {
  enable_all();
  write(local_vector(4), 0x400);
  apic().set_irq(LocalApic::kLint1, true);
  apic().set_irq(LocalApic::kLint1, true);
  EXPECT_EQ(pins_[0].nmi_count, 1);
}

TEST_F(LocalApicTest, ALevelLintInterruptsAgainUntilItsLineFalls) {
  enable_all();
  write(local_vector(3), 0x8042);
  apic().set_irq(LocalApic::kLint0, true);
  EXPECT_EQ(apic().acknowledge(), 0x42);
  EXPECT_EQ(read(local_vector(3)) & kLvtRemoteIrr, kLvtRemoteIrr);
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_EQ(apic().acknowledge(), 0x42);
  apic().set_irq(LocalApic::kLint0, false);
  write(kRegisterEndOfInterrupt, 0);
  EXPECT_FALSE(apic().interrupt_pending());
}

TEST_F(LocalApicTest, CollectsErrorsAndShowsThemAfterAWriteOfTheStatus) {
  enable_all();
  write(local_vector(5), 0xFE);
  send_command(0x4005, 1);
  EXPECT_EQ(apic(0).acknowledge(), 0xFE);
  EXPECT_EQ(read(kRegisterErrorStatus), 0u);
  write(kRegisterErrorStatus, 0);
  EXPECT_EQ(read(kRegisterErrorStatus), uint32_t{kErrorSentIllegalVector});
  write(kRegisterErrorStatus, 0);
  EXPECT_EQ(read(kRegisterErrorStatus), 0u);
  apic(1).accept({.vector = 3});
  write(kRegisterErrorStatus, 0, 1);
  EXPECT_EQ(read(kRegisterErrorStatus, 1), uint32_t{kErrorReceivedIllegalVector});
  (void)read(0x3D);
  write(kRegisterErrorStatus, 0);
  EXPECT_EQ(read(kRegisterErrorStatus), uint32_t{kErrorIllegalRegister});
}

TEST_F(LocalApicTest, OneShotTimerCountsDownAndFiresOnce) {
  enable_all();
  write(local_vector(0), 0xEC);
  write(kRegisterDivide, 0x3);  // 16
  write(kRegisterInitialCount, 1000);
  clock_.advance(8000);
  EXPECT_EQ(read(kRegisterCurrentCount), 500u);
  EXPECT_FALSE(apic().interrupt_pending());
  clock_.advance(8000);
  EXPECT_EQ(read(kRegisterCurrentCount), 0u);
  EXPECT_EQ(apic().acknowledge(), 0xEC);
  write(kRegisterEndOfInterrupt, 0);
  clock_.advance(100'000);
  EXPECT_FALSE(apic().interrupt_pending());
}

TEST_F(LocalApicTest, PeriodicTimerKeepsItsPhaseWhenServedLate) {
  enable_all();
  write(local_vector(0), 0x200EC);
  write(kRegisterDivide, 0xB);
  write(kRegisterInitialCount, 1'000'000);
  uint64_t count = 0;
  for (int i = 0; i < 100; ++i) {
    clock_.advance(100'000);
    if (!apic().acknowledge()) continue;
    write(kRegisterEndOfInterrupt, 0);
    ++count;
  }
  EXPECT_EQ(count, 10u);
  clock_.advance(250'000);
  EXPECT_EQ(read(kRegisterCurrentCount), 750'000u);
}

TEST_F(LocalApicTest, ATinyPeriodDoesNotOccupyTheHost) {
  enable_all();
  write(local_vector(0), 0x200EC);
  write(kRegisterDivide, 0xB);
  write(kRegisterInitialCount, 1);
  uint64_t interrupts = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    clock_.advance(1);
    if (!apic().acknowledge()) continue;
    write(kRegisterEndOfInterrupt, 0);
    ++interrupts;
  }
  EXPECT_LE(interrupts, 50u);
  EXPECT_GE(interrupts, 49u);
}

TEST_F(LocalApicTest, ChangingTheDivisorKeepsTheCount) {
  enable_all();
  write(local_vector(0), 0xEC);
  write(kRegisterDivide, 0xB);
  write(kRegisterInitialCount, 1'000'000);
  clock_.advance(600'000);
  write(kRegisterDivide, 0x0);  // 2
  EXPECT_EQ(read(kRegisterCurrentCount), 400'000u);
  clock_.advance(799'000);
  EXPECT_FALSE(apic().interrupt_pending());
  clock_.advance(1000);
  EXPECT_TRUE(apic().interrupt_pending());
}

TEST_F(LocalApicTest, TscDeadlineFiresAtTheGuestsTscAndClearsItself) {
  enable_all();
  apic().set_tsc_offset(1'000'000);
  write(local_vector(0), 0x400EC);
  const uint64_t guest_now = clock_.tsc() + 1'000'000;
  ASSERT_TRUE(apic().write_msr(kMsrTscDeadline, guest_now + 2'000'000));
  EXPECT_EQ(apic().read_msr(kMsrTscDeadline), guest_now + 2'000'000);
  clock_.advance(999'000);
  EXPECT_FALSE(apic().interrupt_pending());
  clock_.advance(1'001);
  EXPECT_EQ(apic().acknowledge(), 0xEC);
  EXPECT_EQ(apic().read_msr(kMsrTscDeadline), 0u);
}

TEST_F(LocalApicTest, ATscDeadlineInThePastFiresAtOnceAndOneBeyondTimeNever) {
  enable_all();
  clock_.advance(1000);
  write(local_vector(0), 0x400EC);
  ASSERT_TRUE(apic().write_msr(kMsrTscDeadline, 1));
  EXPECT_EQ(apic().acknowledge(), 0xEC);
  write(kRegisterEndOfInterrupt, 0);
  ASSERT_TRUE(apic().write_msr(kMsrTscDeadline, UINT64_MAX));
  clock_.advance(1'000'000'000'000);
  EXPECT_FALSE(apic().interrupt_pending());
  ASSERT_TRUE(apic().write_msr(kMsrTscDeadline, 0));
  EXPECT_EQ(clock_.armed_count(), 0u);
}

TEST_F(LocalApicTest, AChangeOfTheTscOffsetMovesTheDeadline) {
  enable_all();
  write(local_vector(0), 0x400EC);
  ASSERT_TRUE(apic().write_msr(kMsrTscDeadline, 10'000'000));
  apic().set_tsc_offset(20'000'000);
  EXPECT_TRUE(apic().interrupt_pending());
}

TEST_F(LocalApicTest, LeavingDeadlineModeDisarmsTheTimer) {
  enable_all();
  write(local_vector(0), 0x400EC);
  ASSERT_TRUE(apic().write_msr(kMsrTscDeadline, 1'000'000));
  write(local_vector(0), 0x000EC);
  clock_.advance(1'000'000);
  EXPECT_FALSE(apic().interrupt_pending());
  EXPECT_EQ(apic().read_msr(kMsrTscDeadline), 0u);
}

TEST_F(LocalApicTest, BaseMsrRefusesIllegalTransitionsAndReservedBits) {
  LocalApic& self = apic(0);
  EXPECT_EQ(self.read_msr(kMsrApicBase), 0xFEE00900u);
  EXPECT_FALSE(self.write_msr(kMsrApicBase, 0xFEE00901));
  EXPECT_FALSE(self.write_msr(kMsrApicBase, uint64_t{1} << 40 | 0x900));
  EXPECT_FALSE(self.write_msr(kMsrApicBase, 0xFEE00500)) << "x2APIC without enable";
  EXPECT_TRUE(self.write_msr(kMsrApicBase, 0xFEE00100));
  EXPECT_EQ(self.page_base(), std::nullopt);
  EXPECT_FALSE(self.write_msr(kMsrApicBase, 0xFEE00D00)) << "from disabled straight to x2APIC";
  EXPECT_TRUE(self.write_msr(kMsrApicBase, 0xFEE00900));
  EXPECT_EQ(self.page_base(), 0xFEE00000u);
  EXPECT_TRUE(self.write_msr(kMsrApicBase, 0xFEE00D00));
  EXPECT_EQ(self.page_base(), std::nullopt);
  EXPECT_FALSE(self.write_msr(kMsrApicBase, 0xFEE00900)) << "from x2APIC back to xAPIC";
  EXPECT_TRUE(self.write_msr(kMsrApicBase, 0xFEE00100));
  EXPECT_TRUE(self.write_msr(kMsrApicBase, 0xFED00900));
  EXPECT_EQ(self.page_base(), 0xFED00000u);
}

TEST_F(LocalApicTest, X2ApicMsrsFaultWhereTheManualSaysSo) {
  LocalApic& self = apic(0);
  EXPECT_EQ(self.read_msr(0x802), std::nullopt) << "in xAPIC mode";
  EXPECT_FALSE(self.write_msr(0x80B, 0));
  to_x2apic(0);
  EXPECT_EQ(self.read_msr(0x802), 0u);
  EXPECT_EQ(self.read_msr(0x803), kVersionValue);
  EXPECT_TRUE(self.write_msr(0x80B, 0));
  EXPECT_FALSE(self.write_msr(0x80B, 1));
  EXPECT_EQ(self.read_msr(0x80B), std::nullopt);
  EXPECT_FALSE(self.write_msr(0x802, 0)) << "read-only";
  EXPECT_FALSE(self.write_msr(0x80D, 0));
  EXPECT_FALSE(self.write_msr(0x80E, 0)) << "no DFR";
  EXPECT_FALSE(self.write_msr(0x831, 0)) << "no ICR2";
  EXPECT_FALSE(self.write_msr(0x808, 0x100));
  EXPECT_FALSE(self.write_msr(0x828, 1));
  EXPECT_TRUE(self.write_msr(0x828, 0));
  EXPECT_FALSE(self.write_msr(0x82F, 0)) << "no CMCI";
  EXPECT_FALSE(self.write_msr(0x832, 0x80000));
  EXPECT_TRUE(self.write_msr(0x80F, 0x1FF));
  EXPECT_TRUE(self.write_msr(0x83F, 0x77));
  EXPECT_EQ(self.acknowledge(), 0x77);
  EXPECT_EQ(self.read_msr(0x840), std::nullopt);
}

TEST_F(LocalApicTest, ADisabledApicWiresItsPinsStraightThroughAndTakesNoMessages) {
  ASSERT_TRUE(apic(0).write_msr(kMsrApicBase, 0xFEE00100));
  bus_.send_message({.address = 0xFEE00000, .data = 0x4045});
  EXPECT_FALSE(apic(0).interrupt_pending());
  apic(0).set_irq(LocalApic::kLint0, true);
  EXPECT_EQ(apic(0).acknowledge(), 0x38);
  apic(0).set_irq(LocalApic::kLint1, true);
  EXPECT_EQ(pins_[0].nmi_count, 1);
}

TEST_F(LocalApicTest, OddAccessesToThePageDoNothingHarmful) {
  enable_all();
  std::array<uint8_t, 8> bytes{};
  for (uint64_t offset = 0; offset + 8 <= LocalApic::kPageSize; ++offset) {
    apic().read_mmio(offset, MutableByteSpan(bytes).first(1 + offset % 8));
    apic().write_mmio(offset | 1, ByteSpan(bytes).first(1 + offset % 8));
  }
  EXPECT_EQ(read(kRegisterSpurious), 0x1FFu);
}

TEST_F(LocalApicTest, RestoresInMidWork) {
  enable_all();
  write(local_vector(0), 0x200EC);
  write(kRegisterDivide, 0xB);
  write(kRegisterInitialCount, 1'000'000);
  clock_.advance(400'000);
  apic().accept({.vector = 0x61, .trigger = TriggerMode::kLevel});
  apic().acknowledge();
  apic().accept({.vector = 0x71});
  ApicBus bus;
  RecordedPins pins;
  LocalApic other(0, LocalApic::Role::kBootstrap, bus, pins, clock_);
  expect_round_trip(apic(), other);
  EXPECT_TRUE(pins.interrupt_request);
  EXPECT_EQ(other.acknowledge(), 0x71);
  clock_.advance(600'000);
  EXPECT_EQ(other.acknowledge(), 0xEC);
}

TEST_F(LocalApicTest, RefusesStateThatNoHardwareCouldHold) {
  StateWriter writer;
  apic().save_state(writer);
  auto bytes = writer.encode();
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto broken = bytes;
    broken[i] ^= 0xFF;
    (void)restore(apic(1), broken);  // an error or a device that works; never undefined behaviour
    apic(1).reset();
  }
  EXPECT_FALSE(restore(apic(1), {}));
}

TEST_F(LocalApicTest, ResetForgetsEverything) {
  const std::vector<uint8_t> fresh = saved(apic());
  enable_all();
  write(local_vector(0), 0x200EC);
  write(kRegisterInitialCount, 1'000'000);
  apic().accept({.vector = 0x71});
  apic().reset();
  EXPECT_EQ(saved(apic()), fresh);
  EXPECT_EQ(clock_.armed_count(), 0u);
  EXPECT_FALSE(pins_[0].interrupt_request);
}

}  // namespace
}  // namespace bulkhead::device::interrupt

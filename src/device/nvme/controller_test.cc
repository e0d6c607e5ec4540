#include "device/nvme/controller.h"

#include <gtest/gtest.h>

#include <cstring>

#include "device/nvme/testing/nvme_machine.h"

namespace bulkhead::device::nvme {
namespace {

using namespace spec::nvme;

TEST(NvmeController, SaysWhatItCanDo) {
  Machine machine(false, false);
  EXPECT_EQ(machine.driver->read(kVersion), kVersion14);
  const uint64_t capabilities = machine.driver->read(kCapabilities, 8);
  EXPECT_EQ(capabilities & 0xFFFF, Controller::kMaximumQueueSize - 1);
  EXPECT_NE(capabilities & kCapNvmCommandSet, 0u);
  EXPECT_EQ(machine.driver->read_config(spec::pci::kClassCode, 4) & 0xFFFFFF, spec::pci::kClassStorageNvme);
  EXPECT_EQ(machine.driver->status(), 0u);
}

TEST(NvmeController, FailsWhenItsAdminQueuesAreNotMemoryAndRecovers) {
  Machine machine(false, false);
  machine.driver->set_admin_queues(32);
  machine.driver->write(kAdminSubmissionBase, kNowhere, 8);
  machine.driver->enable();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status(), kStatusFatal);
  machine.driver->disable();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status(), 0u);
  machine.start();
  EXPECT_EQ(machine.identify<ControllerData>(kIdentifyController, 0).version, kVersion14);
}

TEST(NvmeController, RefusesPagesAndCommandSetsItDoesNotHave) {
  for (const uint32_t wrong :
       {0xFu << kConfigPageSizeShift, 7u << kConfigCommandSetShift, 1u << kConfigArbitrationShift}) {
    Machine machine(false, false);
    machine.driver->set_admin_queues(32);
    machine.driver->write(kConfiguration, 1 | wrong);
    machine.worker->run();
    EXPECT_EQ(machine.driver->status(), kStatusFatal) << wrong;
  }
}

TEST(NvmeController, IdentifiesItselfAndItsNamespace) {
  Machine machine;
  const auto data = machine.identify<ControllerData>(kIdentifyController, 0);
  EXPECT_EQ(std::string(data.serial, 20), "SN-0042             ");
  EXPECT_EQ(data.namespace_count, 1u);
  EXPECT_EQ(std::string(data.subsystem_name), "nqn.2014-08.org.nvmexpress:uuid:01020300-0000-0000-0000-000000000000");
  const auto space = machine.identify<NamespaceData>(kIdentifyNamespace, 1);
  EXPECT_EQ(space.size, (1u << 22) / 512);
  EXPECT_EQ(space.formats[0] >> 16, 9u);
  EXPECT_EQ(space.preferred_write_granularity, 7);
  EXPECT_EQ((machine.identify<std::array<uint32_t, 2>>(kIdentifyActiveNamespaces, 0)), (std::array<uint32_t, 2>{1, 0}));
  EXPECT_EQ((machine.identify<std::array<uint32_t, 1>>(kIdentifyActiveNamespaces, 1)), (std::array<uint32_t, 1>{0}));
  EXPECT_EQ((machine.identify<std::array<uint8_t, 6>>(kIdentifyDescriptors, 1)),
            (std::array<uint8_t, 6>{kDescriptorUuid, 16, 0, 0, 1, 2}));
  EXPECT_EQ(machine.admin(AdminOpcode::kIdentify, kIdentifyNamespace, 0, kData, 2), Status::kInvalidNamespace);
  EXPECT_EQ(machine.admin(AdminOpcode::kIdentify, 0x77), Status::kInvalidField);
  EXPECT_EQ(machine.admin(AdminOpcode::kIdentify, kIdentifyController, 0, kNowhere), Status::kDataTransferError);
  EXPECT_EQ(machine.admin(static_cast<AdminOpcode>(0x7F)), Status::kInvalidOpcode);
}

TEST(NvmeController, WritesAndReadsBack) {
  Machine machine;
  machine.driver->put(kData, std::vector<uint8_t>(1024, 0xA5));
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWrite, 7, 2)), Status::kSuccess);
  EXPECT_EQ(machine.disk.bytes[7 * 512], 0xA5);
  EXPECT_EQ(machine.disk.bytes[9 * 512 - 1], 0xA5);
  EXPECT_EQ(machine.disk.bytes[9 * 512], 10);
  EXPECT_EQ(machine.disk.flushes, 0);
  EXPECT_EQ(machine.read(8, 2, kData + 0x1000), Status::kSuccess);
  EXPECT_EQ(machine.driver->get(kData + 0x1000, 1)[0], 0xA5);
  EXPECT_EQ(machine.driver->get(kData + 0x1000 + 512, 1)[0], 10);
  ASSERT_FALSE(machine.messages.sent.empty());
  EXPECT_EQ(machine.messages.sent.back().data, 0x41u);
}

TEST(NvmeController, FollowsPageListsOverSeveralPages) {
  Machine machine;
  // A megabyte from the middle of a page: the list takes two pages, and begins two entries before the end of its own.
  const uint32_t count = 1 << 11;
  std::vector<uint64_t> first{kData + 0x1000, kList + 0x3000};
  std::vector<uint64_t> second;
  for (uint64_t i = 2; i <= 256; ++i) second.push_back(kData + i * 0x1000);
  machine.driver->put(kList + 0x2000 - 16, {reinterpret_cast<uint8_t*>(first.data()), 16});
  machine.driver->put(kList + 0x3000, {reinterpret_cast<uint8_t*>(second.data()), second.size() * 8});
  EXPECT_EQ(machine.read(5, count, kData + 0x800, kList + 0x2000 - 16), Status::kSuccess);
  const std::vector<uint8_t> got = machine.driver->get(kData + 0x800, count * 512);
  EXPECT_EQ(std::memcmp(got.data(), &machine.disk.bytes[5 * 512], got.size()), 0);
}

TEST(NvmeController, RefusesPageListsThatMakeNoSense) {
  Machine machine;
  EXPECT_EQ(machine.read(0, 1, kData + 2), Status::kInvalidPrpOffset);
  EXPECT_EQ(machine.read(0, 1, kNowhere), Status::kDataTransferError);
  EXPECT_EQ(machine.read(0, 16, kData, kData + 0x1004), Status::kInvalidPrpOffset);
  EXPECT_EQ(machine.read(0, 16, kData, kNowhere), Status::kDataTransferError);
  EXPECT_EQ(machine.read(0, 32, kData, kList + 4), Status::kInvalidPrpOffset);
  EXPECT_EQ(machine.read(0, 32, kData, kNowhere), Status::kDataTransferError);
  // The second list of a chain begins at a page, or a list of one entry a page would never end.
  const uint64_t self = kList + 0xFF8;
  machine.driver->put(self, as_bytes(self));
  EXPECT_EQ(machine.read(0, 64, kData, self), Status::kInvalidPrpOffset);
  EXPECT_EQ(machine.read(0, 4096, kData, kList), Status::kInvalidField) << "more than MDTS";
  EXPECT_EQ(machine.read(0, 1), Status::kSuccess) << "the queue works on";
}

TEST(NvmeController, ChecksRangesNamespacesAndFlags) {
  Machine machine;
  EXPECT_EQ(machine.read((1 << 22) / 512 - 1, 1), Status::kSuccess);
  EXPECT_EQ(machine.read((1 << 22) / 512 - 1, 2), Status::kLbaOutOfRange);
  EXPECT_EQ(machine.read(UINT64_MAX, 2), Status::kLbaOutOfRange);
  SubmissionEntry entry = Machine::io(NvmOpcode::kRead, 0, 1);
  entry.namespace_id = 2;
  EXPECT_EQ(machine.run(1, entry), Status::kInvalidNamespace);
  entry = Machine::io(NvmOpcode::kRead, 0, 1);
  entry.flags = 0x40;
  EXPECT_EQ(machine.run(1, entry), Status::kInvalidField) << "SGLs are not offered";
  EXPECT_EQ(machine.run(1, Machine::io(static_cast<NvmOpcode>(0x05), 0, 1)), Status::kInvalidOpcode);
}

TEST(NvmeController, FlushesWhenAskedWithForceUnitAccessAndWithoutACache) {
  Machine machine;
  SubmissionEntry flush{.opcode = 0, .namespace_id = kAllNamespaces};
  EXPECT_EQ(machine.run(1, flush), Status::kSuccess);
  EXPECT_EQ(machine.disk.flushes, 1);
  SubmissionEntry write = Machine::io(NvmOpcode::kWrite, 0, 1);
  write.dword12 |= kForceUnitAccess;
  EXPECT_EQ(machine.run(1, write), Status::kSuccess);
  EXPECT_EQ(machine.disk.flushes, 2);
  EXPECT_EQ(machine.admin(AdminOpcode::kSetFeatures, kFeatureWriteCache, 0), Status::kSuccess);
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWrite, 0, 1)), Status::kSuccess);
  EXPECT_EQ(machine.disk.flushes, 3);
}

TEST(NvmeController, WritesZeroesAndDeallocates) {
  Machine machine;
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWriteZeroes, 4, 2)), Status::kSuccess);
  EXPECT_EQ(machine.disk.bytes[4 * 512], 0);
  EXPECT_EQ(machine.disk.bytes[6 * 512], 7);
  const DatasetRange ranges[] = {{0, 8, 0}, {0, 0, 5}, {0, 16, 32}};
  machine.driver->put(kData, as_bytes(ranges));
  SubmissionEntry entry{.opcode = 0x09, .namespace_id = 1, .prp1 = kData, .dword10 = 2, .dword11 = kDatasetDeallocate};
  EXPECT_EQ(machine.run(1, entry), Status::kSuccess);
  EXPECT_EQ(machine.disk.discards, 2);
  entry.dword11 = 0;
  EXPECT_EQ(machine.run(1, entry), Status::kSuccess);
  EXPECT_EQ(machine.disk.discards, 2);
  const DatasetRange wrong[] = {{0, UINT32_MAX, 0}, {0, 1, UINT64_MAX}};
  machine.driver->put(kData, as_bytes(wrong));
  entry.dword10 = 1;
  EXPECT_EQ(machine.run(1, entry), Status::kLbaOutOfRange);
}

TEST(NvmeController, TellsWhatTheDiskCannotDo) {
  Machine machine;
  machine.disk.forced = block::Status::kIoError;
  EXPECT_EQ(machine.read(0, 1), Status::kUnrecoveredReadError);
  EXPECT_EQ(machine.last->status >> 1 & kStatusDoNotRetry, kStatusDoNotRetry);
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWrite, 0, 1)), Status::kWriteFault);
  EXPECT_EQ(machine.last->status >> 1 & kStatusDoNotRetry, 0);
  machine.disk.forced = block::Status::kNoSpace;
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWrite, 0, 1)), Status::kCapacityExceeded);
  EXPECT_EQ(machine.admin(AdminOpcode::kGetLogPage, kLogErrors | 15 << 16), Status::kSuccess);
  EXPECT_EQ(load<ErrorLogEntry>(machine.driver->get(kData, 64).data()).error_count, 3u);
  EXPECT_EQ(machine.admin(AdminOpcode::kGetLogPage, kLogSmart | 127 << 16), Status::kSuccess);
  EXPECT_EQ(load<SmartLog>(machine.driver->get(kData, 512).data()).media_errors[0], 2u);
}

TEST(NvmeController, WhatIsToBeRepeatedWaitsForTheMachineToGoOn) {
  Machine machine;
  machine.disk.forced = block::Status::kRetry;
  machine.driver->put(kData, std::vector<uint8_t>(512, 0x5A));
  machine.driver->add(1, Machine::io(NvmOpcode::kWrite, 0, 1));
  machine.driver->ring(1);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->take(1));
  machine.device->pause();
  Machine other(false, false);
  std::vector<uint8_t> ram(machine.memory->low_size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  expect_round_trip(*machine.device, *other.device);
  other.driver->adopt(*machine.driver);
  machine.disk.forced = block::Status::kOk;
  for (Machine* each : {&machine, &other}) {
    each->device->resume();
    each->worker->run();
    EXPECT_TRUE(each->driver->take(1));
    EXPECT_EQ(each->disk.bytes[511], 0x5A);
  }
}

TEST(NvmeController, AReadOnlyDiskIsWriteProtected) {
  Machine machine(true);
  EXPECT_EQ(machine.identify<NamespaceData>(kIdentifyNamespace, 1).attributes, kNamespaceWriteProtect);
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWrite, 0, 1)), Status::kNamespaceWriteProtected);
  EXPECT_EQ(machine.run(1, Machine::io(NvmOpcode::kWriteZeroes, 0, 1)), Status::kNamespaceWriteProtected);
  EXPECT_EQ(machine.read(0, 1), Status::kSuccess);
}

TEST(NvmeController, AnswersInTheOrderOfTheDisk) {
  Machine machine;
  machine.disk.hold = true;
  const uint16_t first = machine.driver->add(1, Machine::io(NvmOpcode::kRead, 0, 1));
  const uint16_t second = machine.driver->add(1, Machine::io(NvmOpcode::kRead, 1, 1));
  machine.driver->ring(1);
  machine.worker->run();
  ASSERT_EQ(machine.disk.held.size(), 2u);
  EXPECT_FALSE(machine.driver->take(1));
  machine.disk.complete(1);
  machine.disk.complete(0);
  machine.worker->run();
  EXPECT_EQ(machine.driver->take(1)->command_id, second);
  EXPECT_EQ(machine.driver->take(1)->command_id, first);
}

TEST(NvmeController, AFullCompletionQueueHoldsAnswersBack) {
  Machine machine;
  machine.create_queues(2, 64, 4);
  for (int i = 0; i < 10; ++i) machine.driver->add(2, Machine::io(NvmOpcode::kRead, 0, 1));
  machine.driver->ring(2);
  machine.worker->run();
  int answered = 0;
  for (int turn = 0; turn < 10 && answered < 10; ++turn) {
    int at_once = 0;
    while (machine.driver->take(2)) ++at_once;
    EXPECT_LE(at_once, 3);
    answered += at_once;
    machine.driver->acknowledge(2);
    machine.worker->run();
  }
  EXPECT_EQ(answered, 10);
}

TEST(NvmeController, ChecksQueuesWhenTheyAreMade) {
  Machine machine;
  const auto completion = [&](uint32_t id, uint32_t size, uint32_t flags, uint64_t base) {
    return machine.admin(AdminOpcode::kCreateCompletionQueue, id | (size - 1) << 16, flags, base);
  };
  const auto submission = [&](uint32_t id, uint32_t size, uint32_t flags, uint64_t base) {
    return machine.admin(AdminOpcode::kCreateSubmissionQueue, id | (size - 1) << 16, flags, base);
  };
  const uint64_t base = NvmeDriver::submission_base(2);
  EXPECT_EQ(completion(0, 16, 1, base), Status::kInvalidQueueIdentifier);
  EXPECT_EQ(completion(1, 16, 1, base), Status::kInvalidQueueIdentifier) << "exists";
  EXPECT_EQ(completion(17, 16, 1, base), Status::kInvalidQueueIdentifier);
  EXPECT_EQ(completion(2, 1, 1, base), Status::kInvalidQueueSize);
  EXPECT_EQ(completion(2, 1025, 1, base), Status::kInvalidQueueSize);
  EXPECT_EQ(completion(2, 16, 1 | 17 << 16, base), Status::kInvalidInterruptVector);
  EXPECT_EQ(completion(2, 16, 0, base), Status::kInvalidField);
  EXPECT_EQ(completion(2, 16, 1, kNowhere), Status::kInvalidPrpOffset);
  EXPECT_EQ(submission(1, 16, 1 | 1 << 16, base), Status::kInvalidQueueIdentifier);
  EXPECT_EQ(submission(2, 16, 1 | 2 << 16, base), Status::kCompletionQueueInvalid);
  EXPECT_EQ(submission(2, 16, 1 | 0xFFFFu << 16, base), Status::kCompletionQueueInvalid);
  EXPECT_EQ(submission(2, 16, 1 | 1 << 16, base + 8), Status::kInvalidPrpOffset);
  EXPECT_EQ(submission(2, 16, 1 | 1 << 16, base), Status::kSuccess);
  EXPECT_EQ(machine.admin(AdminOpcode::kDeleteCompletionQueue, 1), Status::kInvalidQueueDeletion);
  EXPECT_EQ(machine.admin(AdminOpcode::kDeleteSubmissionQueue, 2), Status::kSuccess);
  EXPECT_EQ(machine.admin(AdminOpcode::kDeleteSubmissionQueue, 1), Status::kSuccess);
  EXPECT_EQ(machine.admin(AdminOpcode::kDeleteCompletionQueue, 1), Status::kSuccess);
  EXPECT_EQ(machine.admin(AdminOpcode::kDeleteCompletionQueue, 1), Status::kInvalidQueueIdentifier);
}

TEST(NvmeController, ADeletionWaitsForWhatIsInFlight) {
  Machine machine;
  machine.disk.hold = true;
  machine.driver->add(1, Machine::io(NvmOpcode::kRead, 0, 1));
  machine.driver->ring(1);
  machine.worker->run();
  machine.driver->add(0, {.opcode = 0, .dword10 = 1});
  machine.driver->ring(0);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->take(0));
  machine.disk.complete_all();
  machine.worker->run();
  EXPECT_TRUE(machine.driver->take(0));
  EXPECT_FALSE(machine.driver->take(1));
}

TEST(NvmeController, FeaturesAreKeptUntilAReset) {
  Machine machine;
  EXPECT_EQ(machine.admin(AdminOpcode::kSetFeatures, kFeatureQueueCount, 3 | 3 << 16), Status::kCommandSequenceError);
  EXPECT_EQ(machine.admin(AdminOpcode::kSetFeatures, kFeatureAsyncEvents, 0x55), Status::kSuccess);
  EXPECT_EQ(machine.admin(AdminOpcode::kGetFeatures, kFeatureAsyncEvents), Status::kSuccess);
  EXPECT_EQ(machine.last->result, 0x55u);
  EXPECT_EQ(machine.admin(AdminOpcode::kSetFeatures, kFeatureAsyncEvents | kFeatureSave, 1),
            Status::kFeatureNotSaveable);
  EXPECT_EQ(machine.admin(AdminOpcode::kSetFeatures, 0xEE, 1), Status::kInvalidField);
  EXPECT_EQ(machine.admin(AdminOpcode::kGetFeatures, kFeatureInterruptVector, 0xFFFF), Status::kInvalidField);
  machine.driver->disable();
  machine.worker->run();
  machine.start();
  EXPECT_EQ(machine.admin(AdminOpcode::kGetFeatures, kFeatureAsyncEvents), Status::kSuccess);
  EXPECT_EQ(machine.last->result, 0u);
  EXPECT_EQ(machine.admin(AdminOpcode::kSetFeatures, kFeatureQueueCount, 99 | 3 << 16), Status::kSuccess);
  EXPECT_EQ(machine.last->result, (Controller::kIoQueueCount - 1) | 3u << 16);
  EXPECT_EQ(machine.admin(AdminOpcode::kCreateCompletionQueue, 5 | 15 << 16, 1), Status::kInvalidQueueIdentifier);
}

TEST(NvmeController, WrongDoorbellsAreEventsAndNothingElse) {
  Machine machine;
  const uint16_t request = machine.driver->add(0, {.opcode = 0x0C});
  machine.driver->ring(0);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->take(0));
  machine.driver->write(kDoorbells + 8, 64);  // the queue has 64 entries
  machine.worker->run();
  auto event = machine.driver->take(0);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->command_id, request);
  EXPECT_EQ(event->result, kEventInvalidDoorbellValue);
  machine.driver->write(kDoorbells + 8 * 5, 1);  // no such queue now
  machine.driver->write(kDoorbells + 0xFF0, 1);  // nor ever
  machine.driver->write(kDoorbells + 8 + 4, 7);  // a head beyond the tail
  machine.driver->write(kDoorbells + 8 + 4, UINT32_MAX);
  machine.worker->run();
  EXPECT_EQ(machine.read(3, 1), Status::kSuccess);
  // Told once the error log was read, and only to who asks.
  EXPECT_EQ(machine.admin(AdminOpcode::kGetLogPage, kLogErrors | 15 << 16), Status::kSuccess);
  EXPECT_EQ(machine.run(0, {.opcode = 0x0C}), Status::kSuccess);
  EXPECT_EQ(machine.last->result, kEventInvalidDoorbell);
}

TEST(NvmeController, TellsADriverThatAskedOfADiskThatGrew) {
  Machine machine;
  const auto grow = [&](uint64_t size) {
    machine.disk.grow(size);
    machine.device->disk_grew(0);
    return machine.driver->take(0);
  };
  for (int i = 0; i < 2; ++i) machine.driver->add(0, {.opcode = 0x0C});
  EXPECT_FALSE(grow(1 << 23));
  machine.admin(AdminOpcode::kSetFeatures, kFeatureAsyncEvents, kNamespaceNotices);
  EXPECT_EQ(grow(1 << 24)->result, kEventNamespaceChanged);
  EXPECT_FALSE(grow(1 << 25)) << "once, until the log is read";
  EXPECT_EQ(machine.admin(AdminOpcode::kGetLogPage, kLogChangedNamespaces | 1023u << 16), Status::kSuccess);
  EXPECT_EQ(load<uint32_t>(machine.driver->get(kData, 4).data()), 1u);
  machine.device->pause();
  EXPECT_FALSE(grow(1 << 26));
  machine.device->resume();
  EXPECT_TRUE(machine.driver->take(0));
}

TEST(NvmeController, EventRequestsAreLimitedAndCanBeAborted) {
  Machine machine;
  uint16_t first = 0;
  for (size_t i = 0; i < Controller::kAsyncEventLimit; ++i) {
    const uint16_t id = machine.driver->add(0, {.opcode = 0x0C});
    if (i == 0) first = id;
  }
  EXPECT_EQ(machine.run(0, {.opcode = 0x0C}), Status::kAsyncEventLimitExceeded);
  machine.driver->add(0, {.opcode = 0x08, .dword10 = uint32_t{first} << 16});
  machine.driver->ring(0);
  machine.worker->run();
  const auto aborted = machine.driver->take(0);
  ASSERT_TRUE(aborted);
  EXPECT_EQ(aborted->command_id, first);
  EXPECT_EQ(static_cast<Status>(aborted->status >> 1 & 0x7FF), Status::kAbortRequested);
  EXPECT_EQ(machine.driver->take(0)->result, 0u);
}

TEST(NvmeController, ThePinFollowsWhatTheDriverHasNotTaken) {
  Machine machine(false, false);
  machine.driver->set_admin_queues(8);
  machine.driver->enable();
  machine.worker->run();
  machine.driver->add(0, {.opcode = 0x06, .prp1 = kData, .dword10 = 1});
  machine.driver->ring(0);
  machine.worker->run();
  EXPECT_TRUE(machine.irq.level());
  machine.driver->write(kInterruptMaskSet, 1);
  EXPECT_FALSE(machine.irq.level());
  machine.driver->write(kInterruptMaskClear, 1);
  EXPECT_TRUE(machine.irq.level());
  ASSERT_TRUE(machine.driver->take(0));
  machine.driver->acknowledge(0);
  EXPECT_FALSE(machine.irq.level()) << "before the doorbell's write ends";
}

TEST(NvmeController, AResetWaitsForWhatIsInFlight) {
  Machine machine;
  machine.disk.hold = true;
  machine.driver->add(1, Machine::io(NvmOpcode::kRead, 0, 1));
  machine.driver->ring(1);
  machine.worker->run();
  machine.driver->disable();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status(), kStatusReady);
  machine.disk.hold = false;
  machine.disk.complete_all();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status(), 0u);
  EXPECT_FALSE(machine.driver->take(1)) << "answers of before the reset are lost";
  machine.start();
  machine.create_queues(1, 16, 16);
  EXPECT_EQ(machine.read(2, 1), Status::kSuccess);
}

TEST(NvmeController, AShutdownFlushesFirst) {
  Machine machine;
  machine.disk.hold = true;
  machine.driver->write(kConfiguration, machine.driver->read(kConfiguration) | 1u << kConfigShutdownShift);
  machine.worker->run();
  EXPECT_EQ(machine.driver->status() & kStatusShutdownMask, kStatusShutdownOccurring);
  ASSERT_EQ(machine.disk.held.size(), 1u);
  EXPECT_EQ(machine.disk.held[0].operation(), block::Operation::kFlush);
  machine.disk.complete_all();
  machine.worker->run();
  EXPECT_EQ(machine.driver->status() & kStatusShutdownMask, kStatusShutdownComplete);
}

TEST(NvmeController, AShutdownWhoseFlushIsToBeRepeatedWaitsForTheMachineToGoOn) {
  Machine machine;
  machine.disk.forced = block::Status::kRetry;
  machine.driver->write(kConfiguration, machine.driver->read(kConfiguration) | 1u << kConfigShutdownShift);
  machine.worker->run();
  EXPECT_EQ(machine.driver->status() & kStatusShutdownMask, kStatusShutdownOccurring);
  machine.device->pause();
  Machine other(false, false);
  std::vector<uint8_t> ram(machine.memory->low_size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  expect_round_trip(*machine.device, *other.device);
  other.driver->adopt(*machine.driver);
  machine.disk.forced = block::Status::kOk;
  for (Machine* each : {&machine, &other}) {
    const auto before = each->disk.flushes;
    each->device->resume();
    each->worker->run();
    EXPECT_EQ(each->disk.flushes, before + 1);
    EXPECT_EQ(each->driver->status() & kStatusShutdownMask, kStatusShutdownComplete);
  }
}

TEST(NvmeController, DoesNothingWithoutBusMastering) {
  Machine machine;
  machine.driver->write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory);
  machine.driver->add(1, Machine::io(NvmOpcode::kRead, 0, 1));
  machine.driver->ring(1);
  machine.worker->run();
  EXPECT_FALSE(machine.driver->take(1));
  machine.driver->write_config(spec::pci::kCommand, 2, spec::pci::kCommandMemory | spec::pci::kCommandBusMaster);
  machine.worker->run();
  EXPECT_TRUE(machine.driver->take(1));
}

TEST(NvmeController, GoesOnAfterItsStateWasCarriedOver) {
  Machine machine;
  machine.driver->add(0, {.opcode = 0x0C});
  machine.driver->ring(0);
  machine.worker->run();
  EXPECT_EQ(machine.read(1, 1), Status::kSuccess);
  Machine other(false, false);
  std::vector<uint8_t> ram(machine.memory->low_size());
  ASSERT_TRUE(machine.memory->read({0}, ram));
  ASSERT_TRUE(other.memory->write({0}, ram));
  machine.device->pause();
  expect_round_trip(*machine.device, *other.device);
  other.driver->adopt(*machine.driver);
  other.worker->run();
  EXPECT_EQ(other.read(9, 1), Status::kSuccess);
  EXPECT_EQ(other.driver->get(kData, 1)[0], 10);
  other.driver->write(kDoorbells + 8, 999);
  other.worker->run();
  EXPECT_EQ(other.driver->take(0)->result, kEventInvalidDoorbellValue);
}

TEST(NvmeController, RefusesStatesThatMakeNoSense) {
  const auto broken = [](std::string_view field, uint64_t value) {
    Machine machine;
    StateWriter writer;
    machine.device->save_state(writer);
    const_cast<StateNode&>(writer.node()).fields.find(field)->second = value;
    Machine other(false, false);
    const auto reader = StateReader::parse(writer.encode(), "test").value();
    return !other.device->restore_state(reader);
  };
  EXPECT_TRUE(broken("namespace1_size", 512));
  EXPECT_TRUE(broken("namespace_count", 2));
  EXPECT_TRUE(broken("phase", 9));
  EXPECT_TRUE(broken("phase", 0));
  EXPECT_TRUE(broken("status", 0xFF));
}

TEST(NvmeController, ReadsAndWritesOfEveryWidthStayWithinTheBar) {
  Machine machine;
  for (size_t size = 1; size <= 8; ++size) {
    for (uint64_t offset = 0; offset + size <= Controller::kBarSize; offset += offset < 0x1100 ? 1 : 13) {
      uint64_t value = UINT64_MAX;
      machine.device->read_mmio(offset, as_mutable_bytes(value).first(size));
      const uint64_t zero = 0;
      if (offset >= 0x1000) machine.device->write_mmio(offset, as_bytes(zero).first(size));
    }
  }
  machine.worker->run();
  machine.device->reset();
  EXPECT_EQ(machine.driver->status(), 0u);
}

}  // namespace
}  // namespace bulkhead::device::nvme

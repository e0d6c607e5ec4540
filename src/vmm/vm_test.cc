// A whole VM on the soft engine with a guest of a few instructions.
#include "vmm/vm.h"

#include <fstream>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/checkpoint.h"
#include "vmm/tiny_kernel.h"

namespace bulkhead::vmm {
namespace {

constexpr uint32_t kCounter = 0x200000;

class VmTest : public testing::Test {
 protected:
  VmTest() : directory_(testing::TempDir() + "bulkhead_vm_" + std::to_string(::getpid())) {
    ::mkdir(directory_.c_str(), 0700);
    config_.memory_bytes = {16 << 20, "test"};
    config_.engine = {EngineName::kSoft, "test"};
    config_.debug_exit = {true, "test"};
    config_.kernel = {path("kernel"), "test"};
    config_.serial_lines.push_back({{console::Spec::Kind::kFile, path("serial")}, "test"});
  }
  ~VmTest() override {
    for (const char* name : {"kernel", "serial", "checkpoint"}) ::unlink(path(name).c_str());
    ::rmdir(directory_.c_str());
  }
  [[nodiscard]] std::string path(const char* name) const { return directory_ + "/" + name; }
  std::unique_ptr<Vm> make(const std::vector<uint8_t>& code) {
    const std::vector<uint8_t> kernel = make_kernel(code);
    std::ofstream(path("kernel"), std::ios::binary)
        .write(reinterpret_cast<const char*>(kernel.data()), static_cast<std::streamsize>(kernel.size()));
    auto vm = Vm::create(config_, EngineSources::of_this_host());
    EXPECT_TRUE(vm) << vm.error().message;
    return vm ? std::move(*vm) : nullptr;
  }
  static uint32_t counter(Vm& vm) { return vm.memory().read_object<uint32_t>({kCounter}).value(); }

  std::string directory_;
  VmConfig config_;
};

// mov dx, 0x3f8; mov al, 'H'; out dx, al; mov al, 21; out 0xf4, al; hlt
const std::vector<uint8_t> kHello = {0x66, 0xBA, 0xF8, 0x03, 0xB0, 'H', 0xEE, 0xB0, 21, 0xE6, 0xF4, 0xF4};
// inc dword [kCounter]; jmp back
const std::vector<uint8_t> kCount = {0xFF, 0x05, 0x00, 0x00, 0x20, 0x00, 0xEB, 0xF8};

TEST_F(VmTest, RunsAGuestToItsEndWithAllItsOutput) {
  const auto vm = make(kHello);
  ASSERT_TRUE(vm);
  vm->start();
  EXPECT_EQ(vm->driver().wait().exit_status(), 43);
  vm->finish();
  EXPECT_EQ(read_file(path("serial"), 100).value(), "H");
  EXPECT_NE(vm->statistics().find("instructions"), std::string::npos);
}

TEST_F(VmTest, ATripleFaultIsNamed) {
  // lidt [zeroes]; ud2
  const auto vm = make({0x0F, 0x01, 0x1D, 0x00, 0x00, 0x30, 0x00, 0x0F, 0x0B});
  ASSERT_TRUE(vm);
  vm->start();
  const Outcome outcome = vm->driver().wait();
  EXPECT_EQ(outcome.exit_status(), 12) << outcome.line();
}

TEST_F(VmTest, APausedGuestStandsStill) {
  const auto vm = make(kCount);
  ASSERT_TRUE(vm);
  vm->start();
  while (counter(*vm) < 1000) std::this_thread::yield();
  vm->driver().hold(StateDriver::Holder::kUser);
  const uint32_t paused_at = counter(*vm);
  EXPECT_TRUE(vm->driver().call_at_rest([&] { EXPECT_EQ(counter(*vm), paused_at); }));
  vm->driver().release(StateDriver::Holder::kUser);
  while (counter(*vm) == paused_at) std::this_thread::yield();
}

TEST_F(VmTest, ACheckpointGoesOnWhereItWasTaken) {
  uint32_t at_least = 0;
  {
    const auto vm = make(kCount);
    ASSERT_TRUE(vm);
    vm->start();
    while (counter(*vm) < 1000) std::this_thread::yield();
    at_least = counter(*vm);
    const auto written = write_checkpoint(path("checkpoint"), *vm);
    ASSERT_TRUE(written) << written.error().message;
  }
  const auto vm = make(kCount);
  ASSERT_TRUE(vm);
  const auto read = read_checkpoint(path("checkpoint"), *vm);
  ASSERT_TRUE(read) << read.error().message;
  const uint32_t restored = counter(*vm);
  EXPECT_GE(restored, at_least);
  vm->start();
  while (counter(*vm) == restored) std::this_thread::yield();
}

TEST_F(VmTest, ACheckpointOfAnotherMachineOrACutOneIsRefused) {
  {
    const auto vm = make(kCount);
    ASSERT_TRUE(vm);
    ASSERT_TRUE(write_checkpoint(path("checkpoint"), *vm));
  }
  config_.cpus = {2, "test"};
  auto vm = make(kCount);
  ASSERT_TRUE(vm);
  EXPECT_EQ(read_checkpoint(path("checkpoint"), *vm).error().message,
            fmt::format("checkpoint '{}': state: saved with 1 vCPUs, not 2", path("checkpoint")));
  ASSERT_EQ(::truncate(path("checkpoint").c_str(), 100), 0);
  EXPECT_FALSE(read_checkpoint(path("checkpoint"), *vm));
}

}  // namespace
}  // namespace bulkhead::vmm

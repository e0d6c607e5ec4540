#include "vmm/gdb/session.h"

#include <gtest/gtest.h>

#include "vmm/gdb/fake_target.h"
#include "vmm/gdb/packet.h"

namespace bulkhead::vmm::gdb {
namespace {

ByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(GdbPacket, ReadsPacketsHoweverTheyAreCut) {
  PacketReader reader;
  std::vector<Input> inputs;
  const std::string stream = "+$qC#b4\x03$m0,4#fd+" + frame("X0,2:a}#") + "$bad#00";
  for (const char c : stream) {
    for (Input& input : reader.feed(bytes_of({&c, 1}))) inputs.push_back(std::move(input));
  }
  ASSERT_EQ(inputs.size(), 5u);
  EXPECT_EQ(inputs[0].data, "qC");
  EXPECT_EQ(inputs[1].kind, Input::Kind::kInterrupt);
  EXPECT_EQ(inputs[2].data, "m0,4");
  EXPECT_EQ(inputs[3].data, "X0,2:a}#");
  EXPECT_EQ(inputs[4].kind, Input::Kind::kBadPacket);
}

TEST(GdbPacket, DropsAPacketBeyondTheBound) {
  PacketReader reader;
  const auto inputs = reader.feed(bytes_of(frame(std::string(kMaximumPacket + 1, 'a')) + frame("g")));
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0].kind, Input::Kind::kBadPacket);
  EXPECT_EQ(inputs[1].data, "g");
}

class GdbSessionTest : public testing::Test {
 protected:
  void SetUp() override {
    target_.states[0].efer = 0x500;
    session_.emplace(target_);
  }
  std::string ask(std::string_view packet) { return session_->handle(packet).packet.value_or("(none)"); }

  FakeTarget target_;
  std::optional<Session> session_;
};

TEST_F(GdbSessionTest, DescribesTheArchitectureOfTheMomentOfConnection) {
  EXPECT_NE(ask("qXfer:features:read:target.xml:0,fff").find("i386:x86-64"), std::string::npos);
  target_.states[0].efer = 0;
  session_.emplace(target_);
  const std::string xml = ask("qXfer:features:read:target.xml:0,1fff");
  EXPECT_NE(xml.find("<architecture>i386</architecture>"), std::string::npos);
  EXPECT_EQ(xml.front(), 'l');
  EXPECT_EQ(ask("qXfer:features:read:target.xml:fffff,10"), "l");
}

TEST_F(GdbSessionTest, ReadsAndWritesRegistersByNumberAndAsAWhole) {
  target_.states[0].gpr[cpu::kRbx] = 0x1122334455667788;
  EXPECT_EQ(ask("p1"), "8877665544332211");
  EXPECT_EQ(ask("P10=0100000000000000"), "OK");
  EXPECT_EQ(target_.states[0].rip, 1u);
  std::string all = ask("g");
  EXPECT_EQ(all.substr(16, 16), "8877665544332211");
  all.replace(0, 16, "ff00000000000000");
  EXPECT_EQ(ask("G" + all), "OK");
  EXPECT_EQ(target_.states[0].gpr[cpu::kRax], 0xFFu);
  EXPECT_EQ(ask("pff"), "E16");
  EXPECT_EQ(ask("P0=00"), "E16");
  EXPECT_EQ(ask("G00"), "E16");
}

TEST_F(GdbSessionTest, EveryRegisterIsReadBackAsItWasWritten) {
  for (const Architecture architecture : {Architecture::kI386, Architecture::kX86_64}) {
    for (const RegisterInfo& info : registers_of(architecture)) {
      if (info.source == RegisterInfo::Source::kSegment) continue;
      cpu::State state;
      std::vector<uint8_t> bytes(info.size);
      bytes[0] = 0x03;
      if (info.source == RegisterInfo::Source::kFlags) bytes[0] = 0x47;
      write_register(info, bytes, state);
      EXPECT_EQ(read_register(info, state), bytes) << info.name;
    }
  }
}

TEST_F(GdbSessionTest, ReadsMemoryAsFarAsItIsMapped) {
  target_.memory[0x1000] = 0xAB;
  EXPECT_EQ(ask("m1000,2"), "ab00");
  EXPECT_EQ(ask("mfffff,2"), "00");
  EXPECT_EQ(ask("m100000,1"), "E0e");
  EXPECT_EQ(ask("m0,ffffff"), "E16");
  EXPECT_EQ(ask("M10,2:beef"), "OK");
  EXPECT_EQ(target_.memory[0x11], 0xEF);
  EXPECT_EQ(ask("M10,3:beef"), "E16");
  EXPECT_EQ(ask("X20,1:a"), "OK");
  EXPECT_EQ(target_.memory[0x20], 'a');
}

TEST_F(GdbSessionTest, ContinuesWithTheBreakpointsAndReportsTheOneMet) {
  EXPECT_EQ(ask("Z0,1234,1"), "OK");
  EXPECT_EQ(ask("Z1,2000,1"), "OK");
  EXPECT_EQ(ask("Z2,3000,4"), "OK");
  EXPECT_EQ(ask("z1,2000,1"), "OK");
  EXPECT_EQ(ask("vCont;c"), "(none)");
  ASSERT_EQ(target_.resumed.size(), 1u);
  ASSERT_EQ(target_.resumed[0].points.size(), 2u);
  EXPECT_EQ(target_.resumed[0].points[1].size, 4);
  EXPECT_FALSE(target_.resumed[0].stepped);
  target_.states[1].rip = 0x1234;
  EXPECT_EQ(session_->stopped(1), "T05swbreak:;thread:2;");
  EXPECT_EQ(session_->stopped(1), std::nullopt);
}

TEST_F(GdbSessionTest, NamesTheWatchpointWhoseBytesChanged) {
  ask("Z2,3000,4");
  ask("Z2,4000,8");
  ask("c");
  target_.memory[0x4007] = 1;
  EXPECT_EQ(session_->stopped(0), "T05watch:4000;thread:1;");
}

TEST_F(GdbSessionTest, StepsOneVcpuAloneOrWithTheOthersRunning) {
  ask("vCont;s:2;c:-1");
  EXPECT_EQ(target_.resumed.back().stepped, 1u);
  EXPECT_FALSE(target_.resumed.back().only);
  session_->stopped(1);
  ask("vCont;s:1");
  EXPECT_EQ(target_.resumed.back().only, 0u);
  session_->stopped(0);
  EXPECT_EQ(ask("vCont;s:9"), "E16");
  EXPECT_EQ(ask("vCont;x"), "E16");
}

TEST_F(GdbSessionTest, CtrlCStopsARunningVmOnce) {
  EXPECT_EQ(session_->interrupt(), std::nullopt);
  ask("c");
  EXPECT_EQ(session_->interrupt(), "T02thread:1;");
  EXPECT_EQ(target_.interrupts, 1);
  EXPECT_EQ(session_->stopped(0), std::nullopt);
}

TEST_F(GdbSessionTest, ThreadsAreTheVcpus) {
  EXPECT_EQ(ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(ask("qsThreadInfo"), "l");
  EXPECT_EQ(ask("T2"), "OK");
  EXPECT_EQ(ask("T3"), "E16");
  target_.states[1].rip = 7;
  EXPECT_EQ(ask("Hg2"), "OK");
  EXPECT_EQ(ask("p10"), "0700000000000000");
  EXPECT_EQ(ask("qC"), "QC2");
}

TEST_F(GdbSessionTest, DetachKillAndMonitorCommands) {
  const auto detached = session_->handle("D");
  EXPECT_TRUE(detached.close);
  EXPECT_EQ(detached.packet, "OK");
  EXPECT_EQ(ask("qRcmd,7265736574"), to_hex(bytes_of("the VM is reset\n")));
  EXPECT_EQ(target_.resets, 1);
  EXPECT_TRUE(session_->handle("qRcmd,71756974").close);
  EXPECT_TRUE(session_->handle("k").close);
  EXPECT_EQ(target_.quits, 2);
  EXPECT_EQ(ask("qRcmd,zz"), "E16");
  EXPECT_EQ(ask("vMustReplyEmpty"), "");
}

}  // namespace
}  // namespace bulkhead::vmm::gdb

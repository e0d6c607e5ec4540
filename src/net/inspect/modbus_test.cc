#include "net/inspect/modbus.h"

#include <gtest/gtest.h>

#include "support/random.h"

namespace bulkhead::net::inspect {
namespace {

using Bytes = std::vector<uint8_t>;
using Outcome = ModbusInspector::Outcome;

void word(Bytes& out, uint16_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}
Bytes request(uint8_t unit, uint8_t function, std::initializer_list<uint16_t> words, const Bytes& tail = {}) {
  Bytes out;
  word(out, 7);
  word(out, 0);
  word(out, static_cast<uint16_t>(2 + 2 * words.size() + tail.size()));
  out.push_back(unit);
  out.push_back(function);
  for (const uint16_t value : words) word(out, value);
  out.insert(out.end(), tail.begin(), tail.end());
  return out;
}
Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Unit 1: reading 100 to 199, and writing 150 to 159.
ModbusPolicy policy() {
  return {.rules = {{.first_unit = 1, .last_unit = 1, .functions = modbus_reads(), .addresses = {100, 199}},
                    {.first_unit = 1, .last_unit = 1, .functions = modbus_writes(), .addresses = {150, 159}}}};
}

TEST(Modbus, ReadsWhatARequestTouches) {
  const ModbusFramed read = read_modbus(request(1, 3, {100, 10}));
  ASSERT_EQ(read.kind, ModbusFramed::Kind::kRequest);
  EXPECT_EQ(read.size, 12u);
  EXPECT_EQ(read.request.ranges[0], (AddressRange{100, 109}));
  const ModbusFramed both = read_modbus(request(1, 23, {100, 2, 150, 1}, {2, 0, 0}));
  ASSERT_EQ(both.kind, ModbusFramed::Kind::kRequest);
  ASSERT_EQ(both.request.range_count, 2);
  EXPECT_EQ(both.request.ranges[1], (AddressRange{150, 150}));
  EXPECT_EQ(read_modbus(request(1, 15, {0, 9}, {2, 0, 0})).request.ranges[0], (AddressRange{0, 8}));
  EXPECT_EQ(read_modbus(request(1, 3, {65535, 1})).request.ranges[0], (AddressRange{65535, 65535}));
}

TEST(Modbus, RefusesMessagesThatTwoReadersCouldTakeDifferently) {
  const Bytes wrong[] = {
      request(1, 3, {100, 0}),
      request(1, 3, {100, 126}),
      request(1, 1, {0, 2001}),
      request(1, 3, {65535, 2}),
      request(1, 3, {100}),
      request(1, 3, {100, 1, 1}),
      request(1, 5, {100, 1}),
      request(1, 16, {100, 2}, {4, 0, 0}),
      request(1, 16, {100, 2}, {2, 0, 0, 0, 0}),
      request(1, 16, {100, 124}, Bytes(249)),
      request(1, 15, {0, 9}, {1, 0}),
      request(1, 23, {1, 1, 1, 1}, {4, 0, 0}),
      request(1, 0, {}),
      request(1, 0x83, {1}),
      request(1, 22, {1, 1}),
  };
  for (const Bytes& bytes : wrong) {
    EXPECT_EQ(read_modbus(bytes).kind, ModbusFramed::Kind::kMalformed) << testing::PrintToString(bytes);
  }
  EXPECT_EQ(read_modbus({Bytes{0, 1, 0, 1}}).kind, ModbusFramed::Kind::kMalformed);
  EXPECT_EQ(read_modbus({Bytes{0, 1, 0, 0, 0, 1}}).kind, ModbusFramed::Kind::kMalformed);
  EXPECT_EQ(read_modbus({Bytes{0, 1, 0, 0, 0, 255}}).kind, ModbusFramed::Kind::kMalformed);
}

TEST(Modbus, JudgesByUnitFunctionAndEveryAddress) {
  const auto verdict = [](const Bytes& bytes) { return judge(policy(), read_modbus(bytes).request); };
  EXPECT_EQ(verdict(request(1, 3, {100, 100})), ModbusVerdict::kAllowed);
  EXPECT_EQ(verdict(request(1, 3, {100, 101})), ModbusVerdict::kAddress);
  EXPECT_EQ(verdict(request(1, 3, {99, 1})), ModbusVerdict::kAddress);
  EXPECT_EQ(verdict(request(2, 3, {100, 1})), ModbusVerdict::kFunction);
  EXPECT_EQ(verdict(request(1, 6, {150, 7})), ModbusVerdict::kAllowed);
  EXPECT_EQ(verdict(request(1, 6, {149, 7})), ModbusVerdict::kAddress);
  EXPECT_EQ(verdict(request(1, 43, {0x0E01})), ModbusVerdict::kFunction);
  // Reading through 23 is a write's business: both ranges lie where writing is allowed.
  EXPECT_EQ(verdict(request(1, 23, {150, 1, 150, 1}, {2, 0, 0})), ModbusVerdict::kAllowed);
  EXPECT_EQ(verdict(request(1, 23, {100, 1, 150, 1}, {2, 0, 0})), ModbusVerdict::kAddress);
  EXPECT_EQ(judge({}, read_modbus(request(1, 3, {100, 1})).request), ModbusVerdict::kFunction);
}

TEST(Modbus, WantsOneRuleForTheWholeOfARequest) {
  const ModbusFunctions both = modbus_reads() | modbus_writes();
  const ModbusPolicy halves{{{.functions = both, .addresses = {0, 9}}, {.functions = both, .addresses = {10, 19}}}};
  EXPECT_EQ(judge(halves, read_modbus(request(1, 3, {5, 5})).request), ModbusVerdict::kAllowed);
  EXPECT_EQ(judge(halves, read_modbus(request(1, 3, {5, 6})).request), ModbusVerdict::kAddress);
  EXPECT_EQ(judge(halves, read_modbus(request(1, 23, {0, 1, 9, 1}, {2, 0, 0})).request), ModbusVerdict::kAllowed);
  EXPECT_EQ(judge(halves, read_modbus(request(1, 23, {0, 1, 10, 1}, {2, 0, 0})).request), ModbusVerdict::kAddress);
}

TEST(Modbus, AnswersARefusalAsAServerWould) {
  const ModbusRequest refused = read_modbus(request(1, 3, {0, 1})).request;
  EXPECT_EQ(modbus_refusal(refused, ModbusVerdict::kAddress), (Bytes{0, 7, 0, 0, 0, 3, 1, 0x83, 2}));
  EXPECT_EQ(modbus_refusal(refused, ModbusVerdict::kFunction), (Bytes{0, 7, 0, 0, 0, 3, 1, 0x83, 1}));
}

// What a server behind the inspector gets: the bytes of the segments that passed, in their order.
struct Path {
  explicit Path(uint32_t first = 1000) : first_sequence(first), inspector(rules, first) {}
  Outcome send(size_t offset, ByteSpan bytes) {
    const auto inspected = inspector.on_client(first_sequence + static_cast<uint32_t>(offset), bytes);
    allowed += inspected.allowed_count;
    last = inspected;
    if (inspected.outcome == Outcome::kRefused) refusal = inspected;
    const size_t passed = inspected.outcome == Outcome::kPass ? bytes.size() : inspected.passed;
    if (offset <= received.size() && offset + passed > received.size()) {
      const ByteSpan fresh = bytes.first(passed).subspan(received.size() - offset);
      received.insert(received.end(), fresh.begin(), fresh.end());
    }
    return inspected.outcome;
  }
  uint32_t first_sequence;
  ModbusPolicy rules = policy();
  ModbusInspector inspector;
  ModbusInspector::Inspected last;
  ModbusInspector::Inspected refusal;
  Bytes received;
  unsigned allowed = 0;
};

TEST(ModbusInspector, SaysTheSameHoweverAStreamIsCut) {
  const Bytes good =
      joined({request(1, 3, {100, 10}), request(1, 16, {150, 2}, {4, 1, 2, 3, 4}), request(1, 4, {199, 1})});
  const Bytes bad = request(1, 6, {10, 1});
  const Bytes all = joined({good, bad, request(1, 3, {100, 1})});
  // In three segments, cut at every pair of places; sequence numbers go round within.
  for (size_t one = 0; one <= all.size(); ++one) {
    for (size_t two = one; two <= all.size(); ++two) {
      Path path(UINT32_MAX - 20);
      const ByteSpan bytes = all;
      path.send(0, bytes.first(one));
      path.send(one, bytes.subspan(one, two - one));
      path.send(two, bytes.subspan(two));
      ASSERT_LT(path.received.size(), good.size() + bad.size()) << one << " " << two;
      ASSERT_EQ(path.refusal.verdict, ModbusVerdict::kAddress) << one << " " << two;
      ASSERT_EQ(path.refusal.request.function, 6);
      // All that is allowed, and of what is refused the segments that do not complete it.
      const size_t cut = two < good.size() + bad.size() ? two : one < good.size() + bad.size() ? one : 0;
      ASSERT_EQ(path.received.size(), std::max(good.size(), cut)) << one << " " << two;
      ASSERT_TRUE(std::equal(path.received.begin(), path.received.end(), all.begin()));
    }
  }
  Path whole;
  EXPECT_EQ(whole.send(0, good), Outcome::kPass);
  EXPECT_EQ(whole.allowed, 3u);
  Path byte_by_byte;
  for (size_t i = 0; i < good.size(); ++i)
    ASSERT_EQ(byte_by_byte.send(i, ByteSpan(good).subspan(i, 1)), Outcome::kPass);
  EXPECT_EQ(byte_by_byte.allowed, 3u);
  EXPECT_EQ(byte_by_byte.received, good);
}

TEST(ModbusInspector, LetsWhatWasAllowedBeRepeatedBesideWhatIsRefused) {
  const Bytes good = request(1, 3, {100, 10}), all = joined({good, request(1, 6, {10, 1})});
  Path path;
  EXPECT_EQ(path.send(0, all), Outcome::kRefused);
  EXPECT_EQ(path.received, good);
  EXPECT_EQ(path.inspector.allowed_count(), 1u);
  EXPECT_EQ(path.inspector.next(), 1000 + good.size());
  EXPECT_EQ(path.send(0, all), Outcome::kRefused);
  EXPECT_EQ(path.last.passed, good.size());
  EXPECT_EQ(path.send(4, ByteSpan(all).subspan(4)), Outcome::kRefused);
  EXPECT_EQ(path.last.passed, good.size() - 4);
  EXPECT_EQ(path.send(good.size(), ByteSpan(all).subspan(good.size())), Outcome::kRefused);
  EXPECT_EQ(path.last.passed, 0u);
}

TEST(ModbusAnswers, AreCountedHoweverTheyAreCut) {
  const Bytes one{0, 7, 0, 0, 0, 5, 1, 3, 2, 0, 9}, all = joined({one, one, {0, 8, 0, 0, 0, 3, 1, 0x83, 2}});
  for (size_t size = 1; size <= all.size(); ++size) {
    ModbusAnswers answers;
    answers.begin(UINT32_MAX - 3);
    for (size_t at = 0; at < all.size(); at += size) {
      const ByteSpan rest = ByteSpan(all).subspan(at);
      const auto sequence = static_cast<uint32_t>(UINT32_MAX - 3 + at);
      EXPECT_FALSE(answers.on_server(sequence + 1, rest));
      EXPECT_TRUE(answers.on_server(sequence, rest.first(std::min(size, rest.size()))));
      EXPECT_TRUE(answers.on_server(sequence, rest.first(1)));
    }
    EXPECT_EQ(answers.count(), 3u);
    EXPECT_EQ(answers.next(), static_cast<uint32_t>(UINT32_MAX - 3 + all.size()));
  }
}

TEST(ModbusInspector, LetsARepetitionSayOnlyTheSame) {
  const Bytes good = request(1, 3, {100, 10});
  Bytes other = request(1, 3, {0, 10});
  Path path;
  ASSERT_EQ(path.send(0, ByteSpan(good).first(9)), Outcome::kPass);
  EXPECT_EQ(path.send(0, ByteSpan(good).first(9)), Outcome::kPass);
  EXPECT_EQ(path.send(4, ByteSpan(good).subspan(4, 3)), Outcome::kPass);
  // Overlapping, and going on.
  EXPECT_EQ(path.send(5, ByteSpan(good).subspan(5)), Outcome::kPass);
  EXPECT_EQ(path.allowed, 1u);
  EXPECT_EQ(path.send(0, other), Outcome::kConflict);
  EXPECT_EQ(path.send(good.size(), request(1, 3, {100, 1})), Outcome::kConflict);
}

TEST(ModbusInspector, PassesOverWhatTheServerHasAcknowledged) {
  const Bytes good = request(1, 3, {100, 10});
  Path path;
  ASSERT_EQ(path.send(0, good), Outcome::kPass);
  path.inspector.on_server(1000 + 4000);
  path.inspector.on_server(999);
  EXPECT_EQ(path.send(0, request(1, 3, {0, 10})), Outcome::kConflict);
  Path acknowledged;
  ASSERT_EQ(acknowledged.send(0, good), Outcome::kPass);
  acknowledged.inspector.on_server(1000 + static_cast<uint32_t>(good.size()));
  // The server drops it whatever it says.
  EXPECT_EQ(acknowledged.send(0, request(1, 3, {0, 10})), Outcome::kPass);
  EXPECT_EQ(acknowledged.received, good);
}

TEST(ModbusInspector, DropsWhatComesBehindAGapUntilItIsFilled) {
  const Bytes all = joined({request(1, 3, {100, 10}), request(1, 6, {10, 1})});
  Path path;
  EXPECT_EQ(path.send(12, ByteSpan(all).subspan(12)), Outcome::kDrop);
  EXPECT_EQ(path.send(0, ByteSpan(all).first(12)), Outcome::kPass);
  EXPECT_EQ(path.send(12, ByteSpan(all).subspan(12)), Outcome::kRefused);
  EXPECT_EQ(path.send(24, request(1, 3, {100, 1})), Outcome::kDrop);
}

TEST(ModbusInspector, BoundsWhatIsOutstanding) {
  Path path;
  const Bytes one = request(1, 3, {100, 1});
  size_t sent = 0;
  while (path.send(sent, one) == Outcome::kPass) sent += one.size();
  EXPECT_LE(sent, OrderedStream::kMaximumOutstanding);
  EXPECT_EQ(path.last.outcome, Outcome::kDrop);
  path.inspector.on_server(1000 + static_cast<uint32_t>(sent));
  EXPECT_EQ(path.send(sent, one), Outcome::kPass);
}

// 10,000 generated requests whose verdict the generator knows by itself, in segments cut and repeated at random.
TEST(ModbusInspector, AgreesWithTheGeneratorOnTenThousandRequests) {
  SeededRandom random(20260101);
  unsigned checked = 0, refused = 0;
  while (checked < 10'000) {
    Path path(static_cast<uint32_t>(random.next()));
    size_t offset = 0;
    for (unsigned count = 0; count < 8; ++count) {
      const bool write = random.below(3) == 0, wide = random.below(10) == 0;
      const auto unit = static_cast<uint8_t>(random.below(12) == 0 ? 2 : 1);
      const auto first = static_cast<uint16_t>(write ? 148 + random.below(12) : (wide ? 90 : 100) + random.below(100));
      const auto quantity = static_cast<uint16_t>(1 + random.below(4));
      const bool inside = write ? first >= 150 && first + quantity <= 160 : first >= 100 && first + quantity <= 200;
      const Bytes bytes = write ? request(unit, 16, {first, quantity},
                                          joined({{static_cast<uint8_t>(2 * quantity)}, Bytes(2u * quantity, 0x5A)}))
                                : request(unit, 3, {first, quantity});
      const bool expected = unit == 1 && inside;
      bool passed = true;
      for (size_t at = 0; at < bytes.size();) {
        const size_t size = 1 + random.below(bytes.size() - at);
        // Sometimes with bytes that were sent before.
        const size_t back = random.below(4) == 0 ? random.below(at + 1) : 0;
        passed = path.send(offset + at - back, ByteSpan(bytes).subspan(at - back, size + back)) == Outcome::kPass;
        at += size;
      }
      offset += bytes.size();
      ++checked;
      ASSERT_EQ(passed, expected) << checked;
      if (random.below(2) == 0 && passed) path.inspector.on_server(path.first_sequence + static_cast<uint32_t>(offset));
      if (!passed) {
        ++refused;
        break;
      }
    }
  }
  EXPECT_GT(refused, 500u);
}

}  // namespace
}  // namespace bulkhead::net::inspect

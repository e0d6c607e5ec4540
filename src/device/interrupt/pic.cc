#include "device/interrupt/pic.h"

namespace bulkhead::device::interrupt {
namespace {

constexpr unsigned kCascadeInput = 2;
constexpr unsigned kSpuriousInput = 7;
// The timer, keyboard, cascade, RTC and FPU inputs are edge-triggered for good.
constexpr uint8_t kMasterLevelWritable = 0xF8, kSlaveLevelWritable = 0xDE;

constexpr uint8_t bit(unsigned input) {
  return static_cast<uint8_t>(1u << input);
}

}  // namespace

// One 8259A

uint8_t Pic::Chip::requests() const {
  const uint8_t level = all_level ? 0xFF : level_mask;
  return static_cast<uint8_t>((edges & ~level) | (lines & level));
}

std::optional<unsigned> Pic::Chip::first_of(uint8_t inputs) const {
  for (unsigned place = 1; place <= 8; ++place) {
    const unsigned input = (lowest_input + place) & 7;
    if ((inputs & bit(input)) != 0) return input;
  }
  return std::nullopt;
}

// An input in service holds back those of equal and lower priority. In special mask mode a masked one holds back none;
// in special fully nested mode the cascade does not hold back itself, so that the slave's priorities count.
std::optional<unsigned> Pic::Chip::pending(Cascade cascade) const {
  const std::optional<unsigned> candidate = first_of(static_cast<uint8_t>(requests() & ~mask));
  if (!candidate) return std::nullopt;
  uint8_t holding = in_service;
  if (special_mask) holding &= static_cast<uint8_t>(~mask);
  if (cascade == Cascade::kMaster && fully_nested_special) holding &= static_cast<uint8_t>(~bit(kCascadeInput));
  const std::optional<unsigned> served = first_of(holding);
  return served && rank(*served) <= rank(*candidate) ? std::nullopt : candidate;
}

void Pic::Chip::set_line(unsigned input, bool asserted) {
  if (asserted && (lines & bit(input)) == 0) edges |= bit(input);
  lines = static_cast<uint8_t>(asserted ? lines | bit(input) : lines & ~bit(input));
}

void Pic::Chip::begin_service(unsigned input) {
  edges &= static_cast<uint8_t>(~bit(input));
  if (!auto_end) {
    in_service |= bit(input);
  } else if (rotate_on_auto_end) {
    lowest_input = static_cast<uint8_t>(input);
  }
}

uint8_t Pic::Chip::poll_input(Cascade cascade) {
  poll = false;
  const std::optional<unsigned> input = pending(cascade);
  if (!input) return 0;
  begin_service(*input);
  return static_cast<uint8_t>(0x80 | *input);
}

void Pic::Chip::write_command(uint8_t value) {
  if ((value & 0x10) != 0) {  // ICW1
    Chip fresh;
    fresh.lines = lines;
    fresh.level_mask = level_mask;
    fresh.vector_base = vector_base;
    fresh.all_level = (value & 0x08) != 0;
    fresh.single = (value & 0x02) != 0;
    fresh.needs_word4 = (value & 0x01) != 0;
    fresh.initialisation = Initialisation::kWord2;
    *this = fresh;
  } else if ((value & 0x08) != 0) {  // OCW3
    poll = (value & 0x04) != 0;
    if ((value & 0x02) != 0) reads_in_service = (value & 0x01) != 0;
    if ((value & 0x40) != 0) special_mask = (value & 0x20) != 0;
  } else {
    write_end_command(value);
  }
}

// OCW2: rotate, specific, end of interrupt in bits 7 to 5.
void Pic::Chip::write_end_command(uint8_t value) {
  const bool rotate = (value & 0x80) != 0, specific = (value & 0x40) != 0, end = (value & 0x20) != 0;
  if (!end && !specific) {
    rotate_on_auto_end = rotate;
    return;
  }
  if (!end && !rotate) return;
  std::optional<unsigned> input = value & 7u;
  if (!specific) {
    // Special mask mode has inputs in service that are masked; they do not count as the highest.
    input = first_of(special_mask ? static_cast<uint8_t>(in_service & ~mask) : in_service);
  }
  if (!input) return;
  if (end) in_service &= static_cast<uint8_t>(~bit(*input));
  if (rotate) lowest_input = static_cast<uint8_t>(*input);
}

void Pic::Chip::write_data(uint8_t value) {
  const Initialisation last = needs_word4 ? Initialisation::kWord4 : Initialisation::kReady;
  switch (initialisation) {
    case Initialisation::kReady:
      mask = value;
      break;
    case Initialisation::kWord2:
      vector_base = value & 0xF8;
      initialisation = single ? last : Initialisation::kWord3;
      break;
    // Which input the cascade uses is wired.
    case Initialisation::kWord3:
      initialisation = last;
      break;
    case Initialisation::kWord4:
      fully_nested_special = (value & 0x10) != 0;
      auto_end = (value & 0x02) != 0;
      initialisation = Initialisation::kReady;
      break;
  }
}

void Pic::Chip::save(StateWriter writer) const {
  writer.put("lines", lines).put("edges", edges).put("level_mask", level_mask);
  writer.put("in_service", in_service).put("mask", mask).put("vector_base", vector_base);
  writer.put("lowest_input", lowest_input).put("all_level", all_level).put("single", single);
  writer.put("needs_word4", needs_word4).put("auto_end", auto_end).put("rotate_on_auto_end", rotate_on_auto_end);
  writer.put("special_mask", special_mask).put("fully_nested_special", fully_nested_special);
  writer.put("reads_in_service", reads_in_service).put("poll", poll).put("initialisation", initialisation);
}

Result<Pic::Chip> Pic::Chip::restore(const StateReader& reader) {
  const auto byte = [&reader](std::string_view field, uint8_t maximum = 0xFF) -> Result<uint8_t> {
    return static_cast<uint8_t>(TRY(reader.get(field, maximum)));
  };
  Chip chip;
  chip.lines = TRY(byte("lines"));
  chip.edges = TRY(byte("edges"));
  chip.level_mask = TRY(byte("level_mask"));
  chip.in_service = TRY(byte("in_service"));
  chip.mask = TRY(byte("mask"));
  chip.vector_base = TRY(byte("vector_base")) & 0xF8;
  chip.lowest_input = TRY(byte("lowest_input", 7));
  chip.all_level = TRY(reader.get_flag("all_level"));
  chip.single = TRY(reader.get_flag("single"));
  chip.needs_word4 = TRY(reader.get_flag("needs_word4"));
  chip.auto_end = TRY(reader.get_flag("auto_end"));
  chip.rotate_on_auto_end = TRY(reader.get_flag("rotate_on_auto_end"));
  chip.special_mask = TRY(reader.get_flag("special_mask"));
  chip.fully_nested_special = TRY(reader.get_flag("fully_nested_special"));
  chip.reads_in_service = TRY(reader.get_flag("reads_in_service"));
  chip.poll = TRY(reader.get_flag("poll"));
  chip.initialisation =
      static_cast<Initialisation>(TRY(byte("initialisation", static_cast<uint8_t>(Initialisation::kWord4))));
  return chip;
}

// The pair

Pic::Pic(IrqLine interrupt_request) : interrupt_request_(interrupt_request) {}

void Pic::reset() {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    const uint8_t master_lines = master_.lines, slave_lines = slave_.lines;
    master_ = Chip{};
    slave_ = Chip{};
    master_.lines = master_lines;
    slave_.lines = slave_lines;
    changed = update();
  }
  if (changed) interrupt_request_.settle();
}

std::optional<unsigned> Pic::master_pending() const {
  return master_.pending(Cascade::kMaster);
}

// The slave's INT drops with each INTA and rises again when it has more, so its level counts as the master's edge.
bool Pic::update() {
  const bool slave_asks = slave_.pending(Cascade::kSlave).has_value();
  master_.set_line(kCascadeInput, slave_asks);
  master_.edges =
      static_cast<uint8_t>(slave_asks ? master_.edges | bit(kCascadeInput) : master_.edges & ~bit(kCascadeInput));
  return interrupt_request_.want(master_pending().has_value());
}

void Pic::set_irq(uint32_t input, bool asserted) {
  if (input >= kInputCount || input == kCascadeInput) return;
  bool changed = false;
  {
    LockGuard lock(mutex_);
    (input < 8 ? master_ : slave_).set_line(input & 7, asserted);
    changed = update();
  }
  if (changed) interrupt_request_.settle();
}

uint8_t Pic::acknowledge() {
  bool changed = false;
  uint8_t vector = 0;
  {
    LockGuard lock(mutex_);
    const std::optional<unsigned> input = master_pending();
    vector = static_cast<uint8_t>(master_.vector_base + input.value_or(kSpuriousInput));
    if (input) master_.begin_service(*input);
    if (input == kCascadeInput) {
      const std::optional<unsigned> slave_input = slave_.pending(Cascade::kSlave);
      if (slave_input) slave_.begin_service(*slave_input);
      vector = static_cast<uint8_t>(slave_.vector_base + slave_input.value_or(kSpuriousInput));
    }
    changed = update();
  }
  if (changed) interrupt_request_.settle();
  return vector;
}

uint8_t Pic::read_chip(bool is_slave, uint16_t offset) {
  bool changed = false;
  uint8_t value = 0;
  {
    LockGuard lock(mutex_);
    Chip& chip = is_slave ? slave_ : master_;
    if (chip.poll) {
      value = chip.poll_input(is_slave ? Cascade::kSlave : Cascade::kMaster);
      changed = update();
    } else if (offset == 0) {
      value = chip.reads_in_service ? chip.in_service : chip.requests();
    } else {
      value = chip.mask;
    }
  }
  if (changed) interrupt_request_.settle();
  return value;
}

void Pic::write_chip(bool is_slave, uint16_t offset, uint8_t value) {
  bool changed = false;
  {
    LockGuard lock(mutex_);
    Chip& chip = is_slave ? slave_ : master_;
    if (offset == 0) {
      chip.write_command(value);
    } else {
      chip.write_data(value);
    }
    changed = update();
  }
  if (changed) interrupt_request_.settle();
}

uint8_t Pic::ChipPorts::read_byte(uint16_t offset) {
  return offset < kRangeSize ? pic_.read_chip(is_slave_, offset) : 0xFF;
}

void Pic::ChipPorts::write_byte(uint16_t offset, uint8_t value) {
  if (offset < kRangeSize) pic_.write_chip(is_slave_, offset, value);
}

uint8_t Pic::EdgeLevelPorts::read_byte(uint16_t offset) {
  LockGuard lock(pic_.mutex_);
  if (offset >= kRangeSize) return 0xFF;
  return offset == 0 ? pic_.master_.level_mask : pic_.slave_.level_mask;
}

void Pic::EdgeLevelPorts::write_byte(uint16_t offset, uint8_t value) {
  if (offset >= kRangeSize) return;
  bool changed = false;
  {
    LockGuard lock(pic_.mutex_);
    if (offset == 0) {
      pic_.master_.level_mask = value & kMasterLevelWritable;
    } else {
      pic_.slave_.level_mask = value & kSlaveLevelWritable;
    }
    changed = pic_.update();
  }
  if (changed) pic_.interrupt_request_.settle();
}

// Saved state

void Pic::save_state(StateWriter& writer) const {
  LockGuard lock(mutex_);
  master_.save(writer.child("master"));
  slave_.save(writer.child("slave"));
}

Result<> Pic::restore_state(const StateReader& reader) {
  const Chip master = TRY(Chip::restore(TRY(reader.child("master"))));
  const Chip slave = TRY(Chip::restore(TRY(reader.child("slave"))));
  bool changed = false;
  {
    LockGuard lock(mutex_);
    master_ = master;
    slave_ = slave;
    changed = update();
  }
  if (changed) interrupt_request_.settle();
  return {};
}

}  // namespace bulkhead::device::interrupt

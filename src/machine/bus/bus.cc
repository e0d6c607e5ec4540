#include "machine/bus/bus.h"

#include <algorithm>
#include <cstring>

namespace bulkhead::machine {

bool Bus::map_ports(std::string owner, uint32_t first, uint32_t count, device::PortIo& target) {
  LockGuard lock(mutex_);
  auto ports = std::make_shared<PortMap>(*map_.ports);
  if (!ports->add({std::move(owner), first, count, &target, RangeKind::kFixed})) return false;
  publish({std::move(ports), map_.mmio});
  return true;
}

bool Bus::map_mmio(std::string owner, GuestAddress first, uint64_t size, device::Mmio& target) {
  LockGuard lock(mutex_);
  auto mmio = std::make_shared<MmioMap>(*map_.mmio);
  if (!mmio->add({std::move(owner), first.value, size, &target, RangeKind::kFixed})) return false;
  publish({map_.ports, std::move(mmio)});
  return true;
}

bool Bus::unmap_ports(uint32_t first) {
  LockGuard lock(mutex_);
  auto ports = std::make_shared<PortMap>(*map_.ports);
  if (!ports->remove(first)) return false;
  publish({std::move(ports), map_.mmio});
  return true;
}

bool Bus::unmap_mmio(GuestAddress first) {
  LockGuard lock(mutex_);
  auto mmio = std::make_shared<MmioMap>(*map_.mmio);
  if (!mmio->remove(first.value)) return false;
  publish({map_.ports, std::move(mmio)});
  return true;
}

void Bus::replace_movable(const std::vector<PortRange>& ports, const std::vector<MmioRange>& mmio) {
  LockGuard lock(mutex_);
  BusMap next = map_;
  const auto is_movable = [](const auto& range) { return range.kind == RangeKind::kMovable; };
  // The table of ports is large: copied only when a range of it comes or goes.
  if (!ports.empty() || std::ranges::any_of(map_.ports->ranges(), is_movable)) {
    auto changed = std::make_shared<PortMap>(*map_.ports);
    changed->remove_movable();
    for (PortRange range : ports) {
      range.kind = RangeKind::kMovable;
      (void)changed->add(std::move(range));
    }
    next.ports = std::move(changed);
  }
  auto changed = std::make_shared<MmioMap>(*map_.mmio);
  changed->remove_movable();
  for (MmioRange range : mmio) {
    range.kind = RangeKind::kMovable;
    (void)changed->add(std::move(range));
  }
  next.mmio = std::move(changed);
  publish(std::move(next));
}

BusMap Bus::map() const {
  LockGuard lock(mutex_);
  return map_;
}

void Bus::publish(BusMap map) {
  map_ = std::move(map);
  generation_.fetch_add(1, std::memory_order_release);
}

void Bus::Reader::refresh() {
  LockGuard lock(bus_.mutex_);
  map_ = bus_.map_;
  generation_ = bus_.generation_.load(std::memory_order_relaxed);
  last_hit_ = 0;
}

template <typename Visit>
void Bus::Reader::for_each_piece(uint64_t address, size_t size, Visit&& visit) {
  catch_up();
  const MmioMap& map = *map_.mmio;
  size_t done = 0;
  while (done < size) {
    const uint64_t at = address + done;
    uint64_t piece = std::min<uint64_t>(size - done, 8);
    const size_t index = map.find(at, last_hit_);
    if (index == MmioMap::kNone) {
      const uint64_t next = map.next_start(at);
      if (next > at) piece = std::min(piece, next - at);
      visit(nullptr, uint64_t{0}, done, static_cast<size_t>(piece));
    } else {
      last_hit_ = index;
      const MmioRange& range = map.ranges()[index];
      const uint64_t offset = at - range.first;
      piece = std::min(piece, range.size - offset);
      visit(&range, offset, done, static_cast<size_t>(piece));
    }
    done += piece;
  }
}

void Bus::Reader::read_memory(uint64_t address, MutableByteSpan out) {
  for_each_piece(address, out.size(), [&](const MmioRange* range, uint64_t offset, size_t at, size_t size) {
    // A device that answers fewer bytes than asked for must not show the guest what was in ours before.
    std::memset(out.data() + at, 0xFF, size);
    if (range != nullptr) range->target->read_mmio(offset, out.subspan(at, size));
  });
}

void Bus::Reader::write_memory(uint64_t address, ByteSpan in) {
  for_each_piece(address, in.size(), [&](const MmioRange* range, uint64_t offset, size_t at, size_t size) {
    if (range != nullptr) range->target->write_mmio(offset, in.subspan(at, size));
  });
}

const PortRange* Bus::Reader::whole_range(uint16_t port, unsigned size) const {
  const PortRange* range = map_.ports->find(port);
  return range != nullptr && range_fits(port - range->first, size, range->count) ? range : nullptr;
}

uint32_t Bus::Reader::read_port(uint16_t port, unsigned size) {
  catch_up();
  const uint32_t ones = size >= 4 ? ~uint32_t{0} : (uint32_t{1} << (8 * size)) - 1;
  if (const PortRange* range = whole_range(port, size)) {
    return range->target->read_port(static_cast<uint16_t>(port - range->first), size) & ones;
  }
  uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const uint32_t at = uint32_t{port} + i;
    const PortRange* range = at < PortMap::kPortCount ? map_.ports->find(at) : nullptr;
    const uint32_t byte =
        range == nullptr ? 0xFF : range->target->read_port(static_cast<uint16_t>(at - range->first), 1);
    value |= (byte & 0xFF) << (8 * i);
  }
  return value;
}

void Bus::Reader::write_port(uint16_t port, unsigned size, uint32_t value) {
  catch_up();
  if (const PortRange* range = whole_range(port, size)) {
    range->target->write_port(static_cast<uint16_t>(port - range->first), size, value);
    return;
  }
  for (unsigned i = 0; i < size; ++i) {
    const uint32_t at = uint32_t{port} + i;
    const PortRange* range = at < PortMap::kPortCount ? map_.ports->find(at) : nullptr;
    if (range != nullptr) {
      range->target->write_port(static_cast<uint16_t>(at - range->first), 1, (value >> (8 * i)) & 0xFF);
    }
  }
}

}  // namespace bulkhead::machine

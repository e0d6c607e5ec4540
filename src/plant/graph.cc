#include "plant/graph.h"

#include <algorithm>

namespace bulkhead::plant {
namespace {

constexpr int kMargin = 20, kBoxWidth = 340, kLineHeight = 18, kRowHeight = 26, kHeader = 44, kGap = 18,
              kLaneWidth = 16;
constexpr int kLabelWidth = 300, kTitle = 40;

// Text of a user's file: it may hold anything.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    }
  }
  return out;
}

struct Box {
  const ZoneConfig* zone = nullptr;
  std::vector<std::string> members;
  size_t conduit_ends = 0;
  size_t used_ends = 0;
  int top = 0;
  int height = 0;
};

std::string card_text(const Plant& plant, const std::string& name, const CardConfig& card) {
  std::string text = name;
  if (card.address) text += fmt::format("  {}", card.address->to_string());
  if (plant.switches.size() > 1) text += fmt::format("  on {}", card.on.name);
  if (card.group.name != card.zone.name) text += fmt::format("  [{}]", card.group.name);
  return text;
}

std::string label_of(const net::policy::Conduit& conduit) {
  std::string text = fmt::format("{}: {}", conduit.name, fmt::join(conduit.services, ", "));
  if (conduit.modbus) text += " (inspected)";
  if (conduit.direction == net::policy::Direction::kOneWay) text += " (one way)";
  return text;
}

std::string outside_text(const LinkToOutside& link) {
  if (link.kind == LinkToOutside::Kind::kNat) return "NAT";
  if (link.kind == LinkToOutside::Kind::kTap) return "tap " + link.tap;
  std::string hosts;
  for (const auto& peer : link.tunnel.peers) hosts += (hosts.empty() ? "" : ", ") + peer.name;
  return "tunnel to " + hosts;
}

std::vector<Box> boxes_of(const Plant& plant) {
  std::vector<Box> boxes;
  for (const ZoneConfig& zone : plant.zones) {
    Box box{.zone = &zone};
    for (const MachineConfig& machine : plant.machines) {
      for (const CardConfig& card : machine.cards) {
        if (card.zone.name == zone.name) box.members.push_back(card_text(plant, machine.name, card));
      }
    }
    for (const LinkToOutside& link : plant.links) {
      if (link.card.zone.name != zone.name) continue;
      box.members.push_back(fmt::format("{}  to outside: {}", link.name, outside_text(link)));
    }
    for (const ConduitConfig& conduit : plant.conduits) {
      if (conduit.conduit.from == zone.name || conduit.conduit.to == zone.name) ++box.conduit_ends;
    }
    boxes.push_back(std::move(box));
  }
  int top = kMargin + kTitle;
  for (Box& box : boxes) {
    const int content = kHeader + kLineHeight * static_cast<int>(std::max<size_t>(box.members.size(), 1));
    const int ends = kRowHeight * static_cast<int>(box.conduit_ends) + 10;
    box.top = top;
    box.height = std::max(content, ends) + 10;
    top += box.height + kGap;
  }
  return boxes;
}

void draw_box(std::string& svg, const Box& box) {
  svg += fmt::format(
      "<rect x='{}' y='{}' width='{}' height='{}' rx='6' fill='#eef3f8' stroke='#3b5b7a' stroke-width='1.5'/>\n",
      kMargin, box.top, kBoxWidth, box.height);
  const std::string vlan = box.zone->vlan == 1 ? "" : fmt::format("  VLAN {}", box.zone->vlan);
  svg += fmt::format("<text x='{}' y='{}' font-weight='bold' font-size='15'>{}{}</text>\n", kMargin + 10, box.top + 22,
                     escaped(box.zone->name), vlan);
  if (!box.zone->description.empty()) {
    svg += fmt::format("<text x='{}' y='{}' fill='#555' font-size='11'>{}</text>\n", kMargin + 10, box.top + 38,
                       escaped(box.zone->description));
  }
  int y = box.top + kHeader + 12;
  for (const std::string& member : box.members) {
    svg += fmt::format("<text x='{}' y='{}'>{}</text>\n", kMargin + 18, y, escaped(member));
    y += kLineHeight;
  }
}

// The next free height at the right edge of a zone's box.
int next_end(std::vector<Box>& boxes, const std::string& zone) {
  Box& box = *std::ranges::find(boxes, zone, [](const Box& each) { return each.zone->name; });
  return box.top + 18 + kRowHeight * static_cast<int>(box.used_ends++);
}

void draw_conduit(std::string& svg, std::vector<Box>& boxes, const net::policy::Conduit& conduit, int lane) {
  const int edge = kMargin + kBoxWidth;
  const int from = next_end(boxes, conduit.from), to = next_end(boxes, conduit.to);
  const bool one_way = conduit.direction == net::policy::Direction::kOneWay;
  svg += fmt::format(
      "<path d='M {} {} H {} V {} H {}' fill='none' stroke='{}' stroke-width='1.5'{} marker-end='url(#arrow)'/>\n",
      edge, from, lane, to, edge + 9, one_way ? "#a04000" : "#1f6f43", conduit.modbus ? " stroke-dasharray='6 3'" : "");
  svg += fmt::format("<circle cx='{}' cy='{}' r='3' fill='#333'/>\n", edge, from);
  svg += fmt::format("<text x='{}' y='{}' font-size='11'>{}</text>\n", edge + 12, from - 4, escaped(label_of(conduit)));
}

}  // namespace

std::string draw_svg(const Plant& plant) {
  std::vector<Box> boxes = boxes_of(plant);
  const int width =
      kMargin + kBoxWidth + kLabelWidth + kLaneWidth * static_cast<int>(plant.conduits.size() + 1) + kMargin;
  const int height = boxes.empty() ? kMargin + kTitle : boxes.back().top + boxes.back().height + kMargin;
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{}' viewBox='0 0 {} {}' font-family='sans-serif' "
      "font-size='13'>\n"
      "<defs><marker id='arrow' markerWidth='9' markerHeight='8' refX='1' refY='4' orient='auto'>"
      "<path d='M 0 0 L 9 4 L 0 8 z' fill='#333'/></marker></defs>\n"
      "<rect width='100%' height='100%' fill='white'/>\n",
      width, height, width, height);
  svg += fmt::format("<text x='{}' y='{}' font-size='19' font-weight='bold'>{}</text>\n", kMargin, kMargin + 16,
                     escaped(plant.name));
  for (const Box& box : boxes) draw_box(svg, box);
  int lane = kMargin + kBoxWidth + kLabelWidth;
  for (const ConduitConfig& conduit : plant.conduits) {
    draw_conduit(svg, boxes, conduit.conduit, lane);
    lane += kLaneWidth;
  }
  return svg + "</svg>\n";
}

}  // namespace bulkhead::plant

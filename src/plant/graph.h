// A picture of a plant: zones as boxes one below the other with what stands in them, conduits as arrows in lanes beside
// them. Plain SVG without scripts, fonts or references to anything outside.
#pragma once

#include <string>

#include "plant/model.h"

namespace bulkhead::plant {

[[nodiscard]] std::string draw_svg(const Plant& plant);

}  // namespace bulkhead::plant

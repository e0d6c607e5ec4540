// Any bytes as plant.yaml: a plant that compiles, explains and draws, or one line that names the file.
#include "plant/compile.h"
#include "plant/explain.h"
#include "plant/graph.h"
#include "support/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bulkhead;
  const auto parsed = plant::parse_plant({reinterpret_cast<const char*>(data), size}, "plant.yaml", "");
  if (!parsed) {
    CHECK(parsed.error().message.starts_with("plant.yaml"), "a complaint names the file");
    return 0;
  }
  CHECK(net::policy::CompiledPlan::compile(plant::policy_of(*parsed)).has_value(), "a checked plant compiles");
  for (const auto& each : parsed->switches) (void)plant::ports_of(*parsed, each.name);
  for (const auto& from : parsed->zones) {
    (void)plant::explain(*parsed, {.from = from.name, .to = parsed->zones.front().name, .service = "modbus"});
  }
  (void)plant::draw_svg(*parsed);
  return 0;
}

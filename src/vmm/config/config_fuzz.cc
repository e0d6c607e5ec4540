// Any bytes as vm.yaml: a configuration or an error of one line, never more.
#include "support/check.h"
#include "vmm/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = bulkhead::vmm::parse_config({reinterpret_cast<const char*>(data), size}, "vm.yaml", "/vms");
  if (config) {
    CHECK(config->cpus.value >= 1 && config->cpus.value <= bulkhead::vmm::VmConfig::kMaximumCpus, "CPUs out of range");
  } else {
    CHECK(!config.error().message.empty(), "an error without words");
  }
  return 0;
}

// The table that --stats prints when a VM has ended.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cpu/vcpu.h"

namespace bulkhead::vmm {

struct StatisticsSection {
  std::string title;
  cpu::Statistics values;
};

// One column a vCPU, and their sum where there are several; then the other sections as name and value.
std::string format_statistics(const std::vector<cpu::Statistics>& vcpus, const std::vector<StatisticsSection>& others);

}  // namespace bulkhead::vmm

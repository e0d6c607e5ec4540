#include "support/os/hardening.h"

#include <sys/prctl.h>

namespace bulkhead {
namespace {

// <linux/prctl.h> of Debian 12 is older than it.
constexpr int kSetMdwe = 65;
constexpr unsigned long kRefuseExecGain = 1;

}  // namespace

bool forbid_writable_code() {
  return ::prctl(kSetMdwe, kRefuseExecGain, 0UL, 0UL, 0UL) == 0;
}

}  // namespace bulkhead

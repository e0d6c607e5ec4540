#include "support/check.h"

#include <cstdio>
#include <cstdlib>

namespace bulkhead {

void check_failed(const char* expression, const char* file, int line, const char* explanation) {
  std::fprintf(stderr, "%s:%d: internal error: %s (%s)\n", file, line, explanation, expression);
  std::abort();
}

}  // namespace bulkhead

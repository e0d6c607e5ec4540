// What the soft engine has translated, for people (--trace blocks) and for Linux's perf (--perf-map). A guest decides
// how much there is to tell, so both end at a written size.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "engine/translation_watcher.h"
#include "support/os/fd.h"
#include "support/os/mutex.h"
#include "support/result.h"
#include "vmm/trace.h"

namespace bulkhead::vmm {

class TranslationLog final : public engine::TranslationWatcher {
 public:
  static constexpr uint64_t kMaximumTraceBytes = 256ull << 20;
  static constexpr uint64_t kMaximumMapBytes = 64ull << 20;

  // tracer: nullptr without --trace blocks; it outlives this. map_path: empty without --perf-map.
  static Result<std::unique_ptr<TranslationLog>> create(Tracer* tracer, const std::string& map_path);
  // Where perf looks for this process: /tmp/perf-PID.map.
  static std::string perf_map_path();

  void on_translated(const engine::TranslatedBlock& block) override;
  void on_common_code(uint32_t vcpu_index, ByteSpan code) override;

 private:
  TranslationLog(Tracer* tracer, Fd map) : tracer_(tracer), map_(std::move(map)) {}
  void add_to_map(ByteSpan code, std::string_view name);

  Tracer* tracer_;
  std::atomic<uint64_t> trace_bytes_{0};
  Fd map_;
  Mutex mutex_;
  uint64_t map_bytes_ GUARDED_BY(mutex_) = 0;
};

// The block's line and one line an instruction.
std::string describe(const engine::TranslatedBlock& block);

}  // namespace bulkhead::vmm

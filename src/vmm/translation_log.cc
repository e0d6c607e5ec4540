#include "vmm/translation_log.h"

#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "engine/decoder/decoder.h"

namespace bulkhead::vmm {

Result<std::unique_ptr<TranslationLog>> TranslationLog::create(Tracer* tracer, const std::string& map_path) {
  Fd map;
  if (!map_path.empty()) {
    // The name can be guessed and the folder is everybody's: only a file of our own making will do.
    if (::unlink(map_path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "'{}'", map_path);
    map = TRY(open_file(map_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_APPEND));
  }
  return std::unique_ptr<TranslationLog>(new TranslationLog(tracer, std::move(map)));
}

std::string TranslationLog::perf_map_path() {
  return fmt::format("/tmp/perf-{}.map", ::getpid());
}

void TranslationLog::add_to_map(ByteSpan code, std::string_view name) {
  if (!map_.valid()) return;
  const std::string line = fmt::format("{:x} {:x} {}\n", reinterpret_cast<uintptr_t>(code.data()), code.size(), name);
  {
    LockGuard guard(mutex_);
    if (map_bytes_ + line.size() > kMaximumMapBytes) return;
    map_bytes_ += line.size();
  }
  // A map that cannot be written is not worth stopping a VM for.
  [[maybe_unused]] const auto written =
      write_all(map_.get(), {reinterpret_cast<const uint8_t*>(line.data()), line.size()});
}

void TranslationLog::on_common_code(uint32_t vcpu_index, ByteSpan code) {
  add_to_map(code, fmt::format("bulkhead_common_cpu{}", vcpu_index));
}

void TranslationLog::on_translated(const engine::TranslatedBlock& block) {
  add_to_map(block.code, fmt::format("guest_{:#x}{}", block.linear, block.privilege == 3 ? "_user" : ""));
  if (tracer_ == nullptr || block.is_again) return;
  const std::string text = describe(block);
  const uint64_t before = trace_bytes_.fetch_add(text.size(), std::memory_order_relaxed);
  if (before + text.size() <= kMaximumTraceBytes) {
    tracer_->line(block.vcpu_index, text);
  } else if (before <= kMaximumTraceBytes) {
    tracer_->line(block.vcpu_index, fmt::format("blocks: no more of them behind {} bytes", kMaximumTraceBytes));
  }
}

std::string describe(const engine::TranslatedBlock& block) {
  std::string text = fmt::format("block {:#x} physical {:#x} cpl {}, {} instructions in {} bytes, to {} bytes at {:#x}",
                                 block.linear, block.physical, block.privilege, block.instructions.size(),
                                 block.bytes.size(), block.code.size(), reinterpret_cast<uintptr_t>(block.code.data()));
  for (const auto& instruction : block.instructions) {
    std::string bytes;
    for (const uint8_t byte : block.bytes.subspan(instruction.offset, instruction.length)) {
      bytes += fmt::format("{:02x} ", byte);
    }
    text += fmt::format("\n    {:#x}  {:<46}{}{}", block.linear + instruction.offset, bytes,
                        engine::decoder::mnemonic_name(instruction.mnemonic),
                        instruction.by_handler ? "  (interpreter)" : "");
  }
  return text;
}

}  // namespace bulkhead::vmm

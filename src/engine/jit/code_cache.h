// Memory for translated code: one anonymous file, mapped once writable and once executable, so that no page is ever
// both. Code is only added; everything is thrown away at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::engine::jit {

class CodeCache {
 public:
  // Fails where the host forbids executable memory.
  static Result<std::unique_ptr<CodeCache>> create(size_t capacity_bytes);

  // Where the bytes now run, or nullptr when there is no room for them.
  const uint8_t* add(std::span<const uint8_t> code);
  // Four bytes of code.
  [[nodiscard]] int32_t value(const uint8_t* at) const;
  // Replaces four bytes of code that is not running: the distance of a jump.
  void patch(const uint8_t* at, int32_t value);
  // Puts a jump over five bytes of code that is not running.
  void patch_jump(const uint8_t* at, const uint8_t* target);
  // Forgets what was added behind the first `keep` bytes.
  void reset(size_t keep) { used_ = keep; }

  [[nodiscard]] size_t used() const { return used_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }
  [[nodiscard]] const uint8_t* begin() const { return executable_; }
  // Where the next bytes will run.
  [[nodiscard]] const uint8_t* end() const { return executable_ + used_; }

 private:
  CodeCache(Mapping window, uint8_t* writable, uint8_t* executable, size_t capacity)
      : window_(std::move(window)), writable_(writable), executable_(executable), capacity_(capacity) {}

  Mapping window_;  // of address space, with both views
  uint8_t* writable_;
  uint8_t* executable_;
  size_t capacity_;
  size_t used_ = 0;
  size_t huge_ = 0;  // up to here huge pages have been asked for
};

}  // namespace bulkhead::engine::jit

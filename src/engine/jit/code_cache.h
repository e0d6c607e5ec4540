// Memory for translated code: one anonymous file, mapped once writable and once executable, so that no page is ever
// both. Code is only added; everything is thrown away at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "support/result.h"

namespace bulkhead::engine::jit {

class CodeCache {
 public:
  // Fails where the host forbids executable memory.
  static Result<std::unique_ptr<CodeCache>> create(size_t capacity_bytes);
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  // Where the bytes now run, or nullptr when there is no room for them.
  const uint8_t* add(std::span<const uint8_t> code);
  // Replaces four bytes of code that is not running: the distance of a jump.
  void patch(const uint8_t* at, int32_t value);
  // Forgets what was added behind the first `keep` bytes.
  void reset(size_t keep) { used_ = keep; }

  [[nodiscard]] size_t used() const { return used_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }
  // Where the next bytes will run.
  [[nodiscard]] const uint8_t* end() const { return executable_ + used_; }

 private:
  CodeCache(uint8_t* writable, uint8_t* executable, size_t capacity)
      : writable_(writable), executable_(executable), capacity_(capacity) {}

  uint8_t* writable_;
  uint8_t* executable_;
  size_t capacity_;
  size_t used_ = 0;
};

}  // namespace bulkhead::engine::jit

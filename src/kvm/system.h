// The host's /dev/kvm: whether it is there, what it can do, and calls to it whose errors name the request.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <linux/kvm.h>

#include "cpu/model.h"
#include "support/os/fd.h"
#include "support/result.h"

namespace bulkhead::kvm {

// ioctl(2) that is repeated when a signal interrupts it; the error reads "kvm: NAME: reason".
Result<int> control(int fd, unsigned long request, const char* name, unsigned long argument);
template <typename T>
Result<int> control(int fd, unsigned long request, const char* name, T* argument) {
  return control(fd, request, name, reinterpret_cast<unsigned long>(argument));
}

class System {
 public:
  // Fails with the reason when this process cannot open /dev/kvm or the host kernel lacks a capability that is needed.
  static Result<std::unique_ptr<System>> open();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] int extension(int capability) const;
  [[nodiscard]] size_t run_area_size() const { return run_area_size_; }
  // What guests can be shown: the CPUID of the host kernel, and what our own interrupt controllers add.
  [[nodiscard]] const cpu::FeatureSet& available_features() const { return features_; }
  // IA32_ARCH_CAPABILITIES as the host kernel offers it to guests; 0 when it does not.
  [[nodiscard]] uint64_t arch_capabilities() const { return arch_capabilities_; }
  // MSRs that the host kernel saves and restores.
  [[nodiscard]] const std::vector<uint32_t>& msr_indices() const { return msr_indices_; }

 private:
  explicit System(Fd fd) : fd_(std::move(fd)) {}
  Result<> check_capabilities() const;
  Result<> read_features();
  Result<bool> has_arch_capabilities();
  Result<> read_msr_indices();

  Fd fd_;
  size_t run_area_size_ = 0;
  cpu::FeatureSet features_;
  uint64_t arch_capabilities_ = 0;
  std::vector<uint32_t> msr_indices_;
};

}  // namespace bulkhead::kvm

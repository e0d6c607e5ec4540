// Runs text cases on any cpu::Vcpu and tells what differs from what they expect.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpu/vcpu.h"
#include "instructions/case_file.h"
#include "memory/guest_memory.h"
#include "support/result.h"

namespace bulkhead::instructions {

class CaseRunner {
 public:
  // Both outlive the runner. tss_not_busy: TR begins as an available TSS, because QEMU's TCG takes no other one from a
  // nested hypervisor and ends itself when an exception wants a stack from it.
  CaseRunner(memory::GuestMemory& memory, cpu::Vcpu& vcpu, bool tss_not_busy = false);
  ~CaseRunner();

  // One line a difference; none when the case passes. An error when the case itself cannot be carried out.
  Result<std::vector<std::string>> run(const Case& test);

 private:
  class Board;
  class Watchdog;

  Result<cpu::State> prepare(const Case& test);
  Result<cpu::State> expected_state(const Case& test, const cpu::State& before) const;
  void compare_memory(const Case& test, std::vector<std::string>& differences);

  memory::GuestMemory& memory_;
  cpu::Vcpu& vcpu_;
  const bool tss_not_busy_;
  std::unique_ptr<Board> board_;
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace bulkhead::instructions

// The jobs on a VM's disks, as its control socket asks for them: one at a time for each disk. See docs/run.md for the
// words. No answer waits for a job.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/job/backup_job.h"
#include "block/job/jobs.h"
#include "vmm/config/config.h"
#include "vmm/disks.h"

namespace bulkhead::vmm {

class DiskJobs {
 public:
  // on_grown hears, on a job's thread, which disk has grown.
  DiskJobs(const VmConfig& config, Disks& disks, std::function<void(size_t index)> on_grown);
  // Cancels them all, and waits until they have ended.
  ~DiskJobs();

  // What stands behind "disk " in a question. "done", facts with tabs between, or "error: " and why.
  [[nodiscard]] std::string answer(std::string_view words);

 private:
  Result<std::string> carry_out(std::string_view words);
  Result<> begin(size_t index, std::string_view verb, std::string_view words);
  [[nodiscard]] std::string status(size_t index);

  const VmConfig& config_;
  Disks& disks_;
  const std::function<void(size_t)> on_grown_;
  std::vector<std::unique_ptr<block::BackupState>> backups_;  // of each disk that can have jobs
  std::vector<std::unique_ptr<block::Job>> jobs_;             // each stays until the next one of its disk
};

}  // namespace bulkhead::vmm

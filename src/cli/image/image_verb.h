// "bulkhead image": disk images at rest. The format of a file is what the user states. Else an existing file is
// probed, and then it may not name other files; a new one is what its name ends in.
#pragma once

#include <string>
#include <vector>

#include "block/format/image.h"
#include "cli/command_line.h"

namespace bulkhead::cli {

class ImageVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "image"; }
  [[nodiscard]] std::string summary() const override { return "Create, examine, check and convert disk images"; }
  void add_options(CLI::App& options) override;
  // 0: done; 1: failed; 2: check found errors, or the images differ; 3: check found only leaks.
  int run() override;

 private:
  [[nodiscard]] Result<int> dispatch();
  [[nodiscard]] Result<int> create();
  [[nodiscard]] Result<int> info();
  [[nodiscard]] Result<int> check();
  [[nodiscard]] Result<int> convert();
  [[nodiscard]] Result<int> map();
  [[nodiscard]] Result<int> resize();
  [[nodiscard]] Result<int> compare();
  [[nodiscard]] Result<std::unique_ptr<block::Image>> open(const std::string& path, const std::string& format,
                                                           block::Access access) const;

  CLI::App* app_ = nullptr;
  std::string file_, second_, format_, second_format_, size_, backing_, backing_format_, output_ = "text";
  std::vector<std::string> settings_;
  bool repair_ = false, quiet_ = false, compress_ = false;
};

}  // namespace bulkhead::cli

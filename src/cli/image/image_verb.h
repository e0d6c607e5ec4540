// "bulkhead image": disk images at rest. The format of a file is what the user states. Else an existing file is
// probed, and then it may not name other files; a new one is what its name ends in.
#pragma once

#include <string>
#include <vector>

#include "block/format/image.h"
#include "cli/command_line.h"
#include "cli/image/bench.h"
#include "cli/json_text.h"

namespace bulkhead::cli {

class ImageVerb final : public Verb {
 public:
  [[nodiscard]] std::string name() const override { return "image"; }
  [[nodiscard]] std::string summary() const override { return "Create, examine, check and convert disk images"; }
  void add_options(CLI::App& options) override;
  // 0: done; 1: failed; 2: check found errors, or the images differ; 3: check found only leaks.
  int run() override;
  // 2 has another meaning here.
  [[nodiscard]] int usage_error_status() const override { return 1; }

 private:
  [[nodiscard]] Result<int> dispatch();
  [[nodiscard]] Result<int> create();
  [[nodiscard]] Result<int> info();
  [[nodiscard]] Result<int> check();
  [[nodiscard]] Result<int> convert();
  [[nodiscard]] Result<int> convert_to_disk(block::Image& from);
  [[nodiscard]] Result<int> map();
  [[nodiscard]] Result<int> resize();
  [[nodiscard]] Result<int> compare();
  [[nodiscard]] Result<int> bench();
  // serve_verb.cc
  [[nodiscard]] Result<int> serve();
  // change_verbs.cc
  [[nodiscard]] Result<int> snapshot();
  [[nodiscard]] Result<int> bitmap();
  [[nodiscard]] Result<int> commit();
  [[nodiscard]] Result<int> rebase();
  // The format that the user stated, without which nothing is changed.
  [[nodiscard]] Result<> must_state_format(std::string_view verb) const;
  [[nodiscard]] bool json() const { return output_ == "json"; }
  [[nodiscard]] Result<std::unique_ptr<block::Image>> open(const std::string& path, const std::string& format,
                                                           block::Access access) const;
  // The secret in a file that the user stated, read once; null when none was stated.
  [[nodiscard]] Result<std::shared_ptr<block::DiskKey>> key_in(const std::string& file) const;
  [[nodiscard]] Result<std::shared_ptr<block::DiskKey>> key() const { return key_in(secret_); }
  // The backing file that the user stated.
  [[nodiscard]] Result<std::unique_ptr<block::Image>> open_below() const;
  // For what needs none of an image's data. The image alone where the files that it names cannot be opened.
  [[nodiscard]] Result<std::unique_ptr<block::Image>> open_locked(block::Access access);

  CLI::App* app_ = nullptr;
  std::string file_, second_, format_, second_format_, size_, backing_, backing_format_, output_ = "text";
  std::string secret_, second_secret_;
  mutable std::map<std::string, std::shared_ptr<block::DiskKey>> keys_;
  std::vector<std::string> settings_;
  std::string action_, name_;
  std::string other_files_;  // why the image is open without them
  BenchPlan bench_plan_;
  bool bench_writes_ = false;
  std::string cache_ = "writeback";
  std::string socket_, listen_, export_;
  bool read_only_ = false, unsafe_ = false;
  bool shrink_ = false, repair_ = false, quiet_ = false, no_sync_ = false, compress_ = false;
};

void print(const std::string& text);
// Bytes, or with K, M, G or T behind them.
[[nodiscard]] Result<uint64_t> parse_size(const std::string& text);

}  // namespace bulkhead::cli

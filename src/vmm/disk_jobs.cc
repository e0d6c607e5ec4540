#include "vmm/disk_jobs.h"

#include <array>

#include "block/format/image_disk.h"
#include "block/store/nbd/uri.h"
#include "vmm/config/values.h"

namespace bulkhead::vmm {
namespace {

constexpr std::string_view kVerbs =
    "status, stats, snapshot, mirror, backup, commit, rebase, flatten, resize, pause, resume, cancel, speed";
constexpr uint64_t kLargestDisk = uint64_t{1} << 62;
constexpr uint64_t kFastest = uint64_t{1} << 40;

std::string_view take_word(std::string_view& words) {
  const std::string_view word = words.substr(0, words.find(' '));
  words.remove_prefix(std::min(words.size(), word.size() + 1));
  return word;
}

// For a line: a file may be named with anything.
std::string shown(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7F) c = '?';
  }
  return line;
}

// "read_requests=7\tread_bytes=...". Times in nanoseconds; a histogram is "BELOW:COUNT,..." of what is not 0.
std::string stats_of(const block::MeteredDisk::Counts& counts) {
  constexpr std::array<std::string_view, block::MeteredDisk::kOperations> kNames{"read", "write", "flush", "discard",
                                                                                 "write_zeroes"};
  std::string line;
  for (size_t i = 0; i < kNames.size(); ++i) {
    const block::LatencyHistogram::Summary& latency = counts.latency[i];
    std::string histogram;
    for (size_t octave = 0; octave < latency.octaves.size(); ++octave) {
      if (latency.octaves[octave] == 0) continue;
      histogram += fmt::format("{}{}:{}", histogram.empty() ? "" : ",", uint64_t{1} << octave, latency.octaves[octave]);
    }
    line += fmt::format(
        "{0}_requests={1}\t{0}_bytes={2}\t{0}_total_ns={3}\t{0}_p50_ns={4}\t{0}_p99_ns={5}\t{0}_p999_ns={6}\t"
        "{0}_max_ns={7}\t{0}_histogram={8}\t",
        kNames[i], counts.requests[i], counts.bytes[i], latency.total_ns, latency.p50_ns, latency.p99_ns,
        latency.p999_ns, latency.max_ns, histogram);
  }
  return line + fmt::format("errors={}\tput_off={}\tin_flight={}", counts.errors, counts.put_off, counts.in_flight);
}

bool is_job(std::string_view verb) {
  return verb == "snapshot" || verb == "mirror" || verb == "backup" || verb == "commit" || verb == "rebase" ||
         verb == "flatten" || verb == "resize";
}

bool has_ended(block::Job::State state) {
  return state != block::Job::State::kRunning && state != block::Job::State::kPaused;
}

Result<block::JobTarget> parse_target(std::string_view words) {
  block::JobTarget target{.format = std::string(take_word(words))};
  TRY(block::find_format(target.format));
  target.path = words;
  if (!target.path.starts_with('/') && !block::nbd::is_uri(target.path)) {
    return fail("'{}': allowed: a path from the root, or an NBD server's address", target.path);
  }
  return target;
}

}  // namespace

DiskJobs::DiskJobs(const VmConfig& config, Disks& disks, std::function<void(size_t index)> on_grown)
    : config_(config), disks_(disks), on_grown_(std::move(on_grown)), backups_(disks.size()), jobs_(disks.size()) {
  for (size_t i = 0; i < disks.size(); ++i) {
    if (disks.live(i) != nullptr) backups_[i] = std::make_unique<block::BackupState>(*disks.live(i));
  }
}

std::string DiskJobs::answer(std::string_view words) {
  const auto answer = carry_out(words);
  return answer ? *answer : "error: " + shown(answer.error().message);
}

Result<std::string> DiskJobs::carry_out(std::string_view words) {
  if (words == "count") return std::to_string(disks_.size());
  if (disks_.size() == 0) return fail("the machine has no disks");
  const std::string_view number = take_word(words);
  const auto index = TRY_IN(fmt::format("disk '{}'", number), parse_number(number, 0, disks_.size() - 1));
  const std::string_view verb = take_word(words);
  if (verb == "status") return status(index);
  if (verb == "stats") return stats_of(disks_[index].counts());
  block::Job* const job = jobs_[index].get();
  if (is_job(verb)) {
    TRY_IN(fmt::format("disk {}: {}", index, verb), begin(index, verb, words));
    return "done";
  }
  if (verb != "pause" && verb != "resume" && verb != "cancel" && verb != "speed") {
    return fail("'{}'; allowed: {}", verb, kVerbs);
  }
  if (job == nullptr || has_ended(job->progress().state)) return fail("disk {}: there is no job", index);
  if (verb == "pause") job->pause();
  if (verb == "resume") job->resume();
  if (verb == "cancel") job->cancel();
  if (verb == "speed") job->set_speed(TRY_IN(fmt::format("speed '{}'", words), parse_number(words, 0, kFastest)));
  return "done";
}

Result<> DiskJobs::begin(size_t index, std::string_view verb, std::string_view words) {
  block::LiveDisk* const disk = disks_.live(index);
  if (disk == nullptr) {
    return fail("{}",
                config_.deterministic.value ? "there are no jobs in a deterministic run" : "the disk is read-only");
  }
  auto& job = jobs_[index];
  if (job && !has_ended(job->progress().state)) return fail("there is a job already: {}", job->kind());
  if (verb == "resize") {
    const uint64_t size = TRY_IN(fmt::format("size '{}'", words), parse_number(words, 1, kLargestDisk));
    TRY(disks_.may_grow(index));
    job = std::make_unique<block::ResizeJob>(*disk, size, [this, index] { on_grown_(index); });
    job->start();
    return {};
  }
  uint64_t speed = 0;
  if (verb != "snapshot") {
    const std::string_view text = take_word(words);
    speed = TRY_IN(fmt::format("speed '{}'", text), parse_number(text, 0, kFastest));
  }
  auto what = block::BackupJob::What::kAll;
  if (verb == "backup") {
    const std::string_view word = take_word(words);
    if (word != "all" && word != "changed") return fail("'{}': allowed: all or changed", word);
    if (word == "changed") what = block::BackupJob::What::kChanged;
  }
  auto care = block::RebaseJob::Care::kCopied;
  if (verb == "rebase") {
    const std::string_view word = take_word(words);
    if (word != "copied" && word != "vouched") return fail("'{}': allowed: copied or vouched", word);
    if (word == "vouched") care = block::RebaseJob::Care::kVouched;
  }
  block::JobTarget target;
  if (verb != "commit" && verb != "flatten") target = TRY(parse_target(words));
  if (verb == "snapshot" || verb == "mirror") TRY(disks_.may_move_to(index, target.format));
  const auto open = [this, index](const std::string& path, const std::string& format, block::Access backing_access,
                                  const std::string& below) {
    return disks_.open_for_job(index, path, format, backing_access, below);
  };
  auto files =
      std::make_unique<block::HostFiles>(host_cache_of(config_.disks[index].value), open, disks_.key_of_files(index));
  // The old one first: it may hold files, and its thread has ended or is about to.
  job.reset();
  if (verb == "snapshot") job = std::make_unique<block::SnapshotJob>(*disk, std::move(files), std::move(target));
  if (verb == "mirror") job = std::make_unique<block::MirrorJob>(*disk, std::move(files), std::move(target), speed);
  if (verb == "backup") {
    job = std::make_unique<block::BackupJob>(*disk, std::move(files), *backups_[index], std::move(target), what, speed);
  }
  if (verb == "commit") job = std::make_unique<block::CommitJob>(*disk, std::move(files), speed);
  if (verb == "rebase" || verb == "flatten") {
    job = std::make_unique<block::RebaseJob>(*disk, std::move(files), std::move(target), care, speed);
  }
  job->start();
  return {};
}

std::string DiskJobs::status(size_t index) {
  const DiskConfig& config = config_.disks[index].value;
  std::string path = config.path,
              format = config.format.empty() ? (config.secret.empty() ? "raw" : "luks") : config.format;
  if (block::LiveDisk* const live = disks_.live(index); live != nullptr)
    std::tie(path, format) = live->path_and_format();
  std::string line = fmt::format("file={}\tformat={}", shown(path), format);
  if (const auto& job = jobs_[index]) {
    const block::Job::Progress progress = job->progress();
    line += fmt::format("\tjob={}\tstate={}\tdone={}\ttotal={}\tspeed={}\tmessage={}", job->kind(),
                        block::to_string(progress.state), progress.done_bytes, progress.total_bytes, progress.speed,
                        shown(progress.message));
  }
  return line;
}

DiskJobs::~DiskJobs() {
  for (auto& job : jobs_) {
    if (job) job->cancel();
  }
}

}  // namespace bulkhead::vmm

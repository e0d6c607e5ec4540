#include "cli/image/image_verb.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include <CLI/CLI.hpp>

#include "block/format/disk_opener.h"
#include "block/format/image_disk.h"
#include "block/format/new_files.h"
#include "block/store/nbd/uri.h"
#include "cli/image/compare.h"
#include "cli/image/copy.h"
#include "cli/progress_line.h"

namespace bulkhead::cli {
namespace {

constexpr int kFailed = 1, kFoundErrors = 2, kFoundLeaks = 3;
constexpr uint64_t kZeroPiece = uint64_t{64} << 20;
// What an image says of itself in numbers; everything else is text, digits or not.
constexpr std::array<std::string_view, 15> kNumbers{"allocated_bytes",
                                                    "bitmaps",
                                                    "block_size",
                                                    "cluster_size",
                                                    "extents",
                                                    "grain_size",
                                                    "key_size",
                                                    "keyslots",
                                                    "snapshots",
                                                    "version",
                                                    "logical_sector_size",
                                                    "sector_size",
                                                    "physical_sector_size",
                                                    "refcount_bits",
                                                    "virtual_size"};

// Of a file that is to be made: what the user stated, or else what its name ends in.
Result<std::string> format_of_new(const std::string& path, const std::string& stated) {
  if (!stated.empty()) return stated;
  constexpr std::array kEndings{std::pair{".img", "raw"},  std::pair{".raw", "raw"},   std::pair{".qcow2", "qcow2"},
                                std::pair{".vhd", "vhd"},  std::pair{".vhdx", "vhdx"}, std::pair{".vmdk", "vmdk"},
                                std::pair{".luks", "luks"}};
  for (const auto& [ending, format] : kEndings) {
    if (path.ends_with(ending)) return format;
  }
  return fail("'{}': the name does not say which format is wanted; state it", path);
}

}  // namespace

Result<uint64_t> parse_size(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, text.data() + text.size());
  const size_t power = unit.empty() ? 0 : std::string_view("KMGT").find(unit[0]) + 1;
  if (error != std::errc() || unit.size() > 1 || power > 4 || value > (uint64_t{1} << 62) >> (10 * power)) {
    return fail("size '{}': a number of bytes, or with K, M, G or T behind it", text);
  }
  return value << (10 * power);
}

namespace {

std::string_view name_of(block::ExtentKind kind) {
  switch (kind) {
    case block::ExtentKind::kData:
      return "data";
    case block::ExtentKind::kZero:
      return "zero";
    case block::ExtentKind::kAbsent:
      return "absent";
  }
  return "unknown";
}

}  // namespace

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void ImageVerb::add_options(CLI::App& options) {
  app_ = &options;
  options.require_subcommand(1);
  const auto add = [&](const char* name, const char* summary) {
    CLI::App* const verb = options.add_subcommand(name, summary);
    verb->add_option("FILE", file_, "The image")->required();
    verb->add_option("-f,--format", format_,
                     "Its format; without it, an existing file is probed and may not name other files");
    verb->add_option("--encrypt", secret_, "The file whose bytes are the secret of an encrypted image, or /dev/fd/N")
        ->type_name("SECRET");
    return verb;
  };
  CLI::App* const create = add("create", "Make an empty image");
  create->add_option("SIZE", size_, "Bytes, or with K, M, G, T; by default the backing file's");
  create->add_option("-b,--backing", backing_, "The file whose contents show through, named relative to FILE");
  create->add_option("-F,--backing-format", backing_format_, "Its format");
  create->add_option("--set", settings_, "KEY=VALUE of the format, as cluster_size=65536 or preallocation=falloc");
  const auto output = [&](CLI::App* verb) {
    verb->add_option("-o,--output", output_, "text or json")->check(CLI::IsMember({"text", "json"}));
  };
  const auto quiet = [&](CLI::App* verb) { verb->add_flag("-q,--quiet", quiet_, "No progress"); };
  output(create);
  output(add("info", "Say what an image is"));
  CLI::App* const check = add("check", "Find what is wrong in an image");
  check->add_flag("--repair", repair_, "Set refcounts right");
  quiet(check);
  output(check);
  CLI::App* const convert = add("convert", "Copy an image's contents into a new one");
  convert->add_option("TARGET", second_, "The new file")->required();
  convert->add_option("-O,--target-format", second_format_, "Its format");
  convert->add_option("--set", settings_, "KEY=VALUE of the format");
  convert->add_option("--target-encrypt", second_secret_, "The secret of the new file, which is encrypted then")
      ->type_name("SECRET");
  convert->add_flag("-c,--compress", compress_, "Compress the new file's data");
  output(convert);
  convert->add_flag("--no-sync", no_sync_, "Do not wait until the new file is on the disk: a power cut may take it");
  quiet(convert);
  CLI::App* const resize = add("resize", "Make an image's disk larger or smaller");
  resize->add_option("SIZE", size_, "Its new size")->required();
  resize->add_flag("--shrink", shrink_, "Give up what lies behind a smaller size");
  quiet(resize);
  output(resize);
  output(add("map", "List where an image holds data"));
  CLI::App* const compare = add("compare", "Compare the contents of two images");
  compare->add_option("OTHER", second_, "The other image")->required();
  compare->add_option("-F,--other-format", second_format_, "Its format");
  compare->add_option("--other-encrypt", second_secret_, "Its secret")->type_name("SECRET");
  quiet(compare);
  output(compare);
  CLI::App* const snapshot = add("snapshot", "Keep, list, restore and delete states of a disk inside its image");
  snapshot->add_option("ACTION", action_, "create, list, apply or delete")
      ->required()
      ->check(CLI::IsMember({"create", "list", "apply", "delete"}));
  snapshot->add_option("NAME", name_, "Of the snapshot");
  output(snapshot);
  CLI::App* const bitmap = add("bitmap", "Bitmaps of what has been written since a moment, inside an image");
  bitmap->add_option("ACTION", action_, "list, add, delete or changed")
      ->required()
      ->check(CLI::IsMember({"list", "add", "delete", "changed"}));
  bitmap->add_option("NAME", name_, "Of the bitmap");
  bitmap->add_option("-g,--granularity", size_, "Bytes that a bit stands for, or with K, M, G (64K)");
  output(bitmap);
  CLI::App* const commit = add("commit", "Write what an image holds into its backing file");
  quiet(commit);
  output(commit);
  CLI::App* const rebase = add("rebase", "Put an image on another backing file, or on none");
  rebase->add_option("-b,--backing", backing_, "The new one, named relative to FILE; without it, there is none");
  rebase->add_option("-F,--backing-format", backing_format_, "Its format");
  rebase->add_flag("-u,--unsafe", unsafe_,
                   "Change the name alone: no contents are looked at, and you know that the other one holds the same");
  quiet(rebase);
  output(rebase);
  CLI::App* const bench = add("bench", "Measure how many requests an image answers; writing destroys its contents");
  bench->add_option("-c,--count", bench_plan_.count, "Requests (75000)")->check(CLI::Range(1, 1000000000));
  bench->add_option("-d,--depth", bench_plan_.depth, "Requests under way at a time (64)")->check(CLI::Range(1, 4096));
  bench->add_option("-s,--size", bench_plan_.size, "Bytes of one (4096)")->check(CLI::Range(512, 1 << 24));
  bench->add_option("-S,--step", bench_plan_.step, "Bytes from one to the next (the size)");
  bench->add_option("-t,--cache", cache_, "writeback, or none: past the host's page cache")
      ->check(CLI::IsMember({"writeback", "none"}));
  bench->add_flag("-w,--write", bench_writes_, "Write instead of reading");
  quiet(bench);
  output(bench);
  CLI::App* const serve = add("serve", "Serve an image to NBD clients, until SIGTERM or Ctrl-C");
  serve->add_option("--socket", socket_, "Listen at this path, for its owner alone")->type_name("PATH");
  serve->add_option("--listen", listen_, "Listen there, for everybody who reaches it: nothing is encrypted or asked")
      ->type_name("ADDR:PORT");
  serve->add_option("--export", export_, "The export's name; a client that names none gets it too (none)")
      ->type_name("NAME");
  serve->add_flag("--read-only", read_only_, "Refuse writes");
}

int ImageVerb::run() {
  Result<int> status = dispatch();
  if (status) return *status;
  print_message(status.error().message);
  return kFailed;
}

Result<int> ImageVerb::dispatch() {
  const std::string verb = app_->get_subcommands().front()->get_name();
  if (verb == "create") return create();
  if (verb == "info") return info();
  if (verb == "check") return check();
  if (verb == "convert") return convert();
  if (verb == "map") return map();
  if (verb == "resize") return resize();
  if (verb == "snapshot") return snapshot();
  if (verb == "bitmap") return bitmap();
  if (verb == "commit") return commit();
  if (verb == "rebase") return rebase();
  if (verb == "bench") return bench();
  if (verb == "serve") return serve();
  return compare();
}

Result<std::unique_ptr<block::Image>> ImageVerb::open(const std::string& path, const std::string& format,
                                                      block::Access access) const {
  const block::Unlock unlock{.key = TRY(key_in(path == second_ ? second_secret_ : secret_))};
  if (format.empty()) return block::open_probed_image(path, access, unlock);
  return block::open_image(path, format, access, block::Access::kReadOnly, block::HostCache::kUsed, unlock);
}

Result<std::unique_ptr<block::Image>> ImageVerb::open_locked(block::Access access) {
  const block::Unlock unlock{.key = TRY(key()), .may_stay_locked = true};
  if (format_.empty()) return block::open_probed_image(file_, access, unlock);
  auto image = block::open_image(file_, format_, access, block::Access::kReadOnly, block::HostCache::kUsed, unlock);
  if (image || format_ != "qcow2" || unlock.key) return image;
  auto alone = block::open_image_alone(file_, format_, access);
  if (!alone) return image;
  other_files_ = image.error().message;
  return alone;
}

// A pipe can be read once.
Result<std::shared_ptr<block::DiskKey>> ImageVerb::key_in(const std::string& file) const {
  if (file.empty()) return nullptr;
  auto& key = keys_[file];
  if (!key) key = TRY(block::DiskKey::read(file));
  return key;
}

namespace {

Result<std::map<std::string, std::string>> parse_settings(const std::vector<std::string>& words) {
  std::map<std::string, std::string> settings;
  for (const std::string& word : words) {
    const size_t at = word.find('=');
    if (at == std::string::npos) return fail("--set '{}': KEY=VALUE", word);
    settings[word.substr(0, at)] = word.substr(at + 1);
  }
  return settings;
}

}  // namespace

Result<int> ImageVerb::create() {
  block::CreateOptions options{.backing_name = backing_,
                               .settings = TRY(parse_settings(settings_)),
                               .key = TRY(key()),
                               .progress = show_thick_progress(::isatty(STDERR_FILENO) != 0)};
  if (!backing_.empty()) {
    if (backing_format_.empty()) return fail("create '{}': state the backing file's format", file_);
    options.backing_format = backing_format_;
    const auto below = TRY(open_below());
    options.size = below->geometry().size;
    options.backing_identity = below->info().identity;
  } else if (size_.empty()) {
    return fail("create '{}': a size is missing", file_);
  }
  if (!size_.empty()) options.size = TRY(parse_size(size_));
  block::NewFiles files;
  TRY(block::create_files(files, file_, TRY(format_of_new(file_, format_)), options));
  TRY(block::sync_folder_of(file_));
  files.keep();
  if (json()) print(fmt::format("{{\"file\": {}, \"virtual_size\": {}}}\n", json_text(file_), options.size));
  return 0;
}

Result<int> ImageVerb::info() {
  const auto image = TRY(open_locked(block::Access::kReadOnly));
  block::ImageInfo info = image->info();
  if (const auto allocated = image->allocated(); allocated) {
    info.details.insert(info.details.begin(), {"allocated_bytes", std::to_string(*allocated)});
  }
  info.details.insert(info.details.begin(), {"virtual_size", std::to_string(info.virtual_size)});
  info.details.insert(info.details.begin(), {"format", info.format});
  if (!info.backing_name.empty()) {
    info.details.emplace_back("backing_name", info.backing_name);
    info.details.emplace_back("backing_format", info.backing_format);
  }
  if (!other_files_.empty()) info.details.emplace_back("other_files", other_files_);
  std::string text;
  for (const auto& [key, value] : info.details) {
    if (output_ == "json") {
      const bool number = std::ranges::find(kNumbers, key) != kNumbers.end();
      text += fmt::format("{}{}: {}", text.empty() ? "{" : ", ", json_text(key), number ? value : json_text(value));
    } else {
      const std::string shown = json_text(value);
      text += fmt::format("{}: {}\n", key, std::string_view(shown).substr(1, shown.size() - 2));
    }
  }
  print(output_ == "json" ? text + "}\n" : text);
  return 0;
}

Result<int> ImageVerb::check() {
  const auto image = TRY(open_locked(repair_ ? block::Access::kRepair : block::Access::kReadOnly));
  std::optional<ProgressLine> progress;
  image->watch([&](uint64_t done, uint64_t all) {
    if (!progress) progress.emplace(all, quiet_);
    progress->set(done);
  });
  const block::CheckReport report = TRY(image->check(repair_ ? block::Repair::kAll : block::Repair::kNone));
  progress.reset();
  if (output_ == "json") {
    const std::string alone = other_files_.empty() ? "" : ", \"other_files\": " + json_text(other_files_);
    std::string messages;
    for (const std::string& message : report.messages) messages += (messages.empty() ? "" : ", ") + json_text(message);
    print(fmt::format("{{\"errors\": {}, \"leaks\": {}, \"repaired\": {}{}, \"messages\": [{}]}}\n", report.errors,
                      report.leaks, report.repaired, alone, messages));
  } else {
    if (!other_files_.empty()) print(fmt::format("checked alone: {}\n", other_files_));
    for (const std::string& message : report.messages) print(message + "\n");
    print(fmt::format("{} errors, {} leaked clusters, {} repaired\n", report.errors, report.leaks, report.repaired));
  }
  if (report.repaired == report.errors + report.leaks) return 0;
  return report.errors != 0 ? kFoundErrors : kFoundLeaks;
}

// Onto a disk that is there already: a server's, or a block device. What it holds so far is written over, with zeroes
// where there are holes.
Result<int> ImageVerb::convert_to_disk(block::Image& from) {
  if (!second_format_.empty() && second_format_ != "raw") return fail("'{}': its format is raw", second_);
  if (compress_ || !settings_.empty()) return fail("'{}': raw has no such settings", second_);
  const uint64_t size = from.geometry().size;
  const auto to = TRY(block::open_image(second_, "raw", block::Access::kReadWrite));
  const uint64_t there = to->geometry().size;
  if (there < size) return fail("convert '{}' to '{}': {} bytes do not fit {}", file_, second_, size, there);
  const auto copy = [&]() -> Result<> {
    TRY(copy_image(from, *to, CopyMode::kPlain, quiet_));
    for (uint64_t offset = size, part = 0; offset < there; offset += part) {
      part = std::min(kZeroPiece, there - offset);
      const auto status = to->write_zeroes(offset, part, block::Unmap::kYes);
      if (status != block::Status::kOk) return fail("write zeroes at {}: {}", offset, to_string(status));
    }
    if (const auto status = to->flush(); status != block::Status::kOk) return fail("flush: {}", to_string(status));
    return {};
  };
  TRY_IN(fmt::format("convert '{}' to '{}'", file_, second_), copy());
  if (json()) {
    print(fmt::format("{{\"file\": {}, \"format\": \"raw\", \"virtual_size\": {}}}\n", json_text(second_), size));
  }
  return 0;
}

Result<int> ImageVerb::convert() {
  const auto from = TRY(open(file_, format_, block::Access::kReadOnly));
  const auto target_key = TRY(key_in(second_secret_));
  std::error_code error;
  if (block::nbd::is_uri(second_) || std::filesystem::is_block_file(second_, error)) {
    if (target_key) return fail("'{}': nothing is encrypted on a disk that is there already", second_);
    return convert_to_disk(*from);
  }
  const std::string format = TRY(format_of_new(second_, second_format_));
  auto settings = TRY(parse_settings(settings_));
  if (compress_ && settings.contains("preallocation") && settings["preallocation"] != "off") {
    return fail("convert '{}' to '{}': what is compressed has no place beforehand; leave preallocation out", file_,
                second_);
  }
  block::NewFiles files;
  TRY(block::create_files(files, second_, format,
                          {.size = from->geometry().size,
                           .settings = std::move(settings),
                           .key = target_key,
                           .progress = show_thick_progress(!quiet_ && ::isatty(STDERR_FILENO) != 0)}));
  const auto copy = [&]() -> Result<> {
    // What must be on the disk at the end is not made to pass through the host's cache first.
    const auto cache = no_sync_ ? block::HostCache::kTrusted : block::HostCache::kBypassedIfPossible;
    const auto to = TRY(
        block::open_image(second_, format, block::Access::kFill, block::Access::kReadOnly, cache, {.key = target_key}));
    if (compress_ && to->compression_unit() == 0) return fail("{} cannot compress", format);
    TRY(copy_image(*from, *to, compress_ ? CopyMode::kCompressed : CopyMode::kPlain, quiet_));
    if (const auto status = to->flush(); status != block::Status::kOk) {
      return fail("flush: {}", to_string(status));
    }
    if (no_sync_) return {};
    return block::sync_folder_of(second_);
  };
  TRY_IN(fmt::format("convert '{}' to '{}'", file_, second_), copy());
  files.keep();
  if (json()) {
    print(fmt::format("{{\"file\": {}, \"format\": {}, \"virtual_size\": {}}}\n", json_text(second_), json_text(format),
                      from->geometry().size));
  }
  return 0;
}

Result<int> ImageVerb::bench() {
  TRY(must_state_format("bench"));
  if (app_->get_subcommands().front()->count("--step") == 0) bench_plan_.step = bench_plan_.size;
  bench_plan_.operation = bench_writes_ ? block::Operation::kWrite : block::Operation::kRead;
  const block::OpenedDisk opened =
      TRY(block::open_disk(file_, format_, bench_writes_ ? block::Access::kReadWrite : block::Access::kReadOnly,
                           cache_ == "none" ? block::HostCache::kBypassed : block::HostCache::kUsed,
                           block::ImageDisk::kDefaultThreadCount, block::Access::kReadOnly, TRY(key())));
  const double seconds = TRY_IN(fmt::format("bench '{}'", file_), bench_disk(*opened.disk, bench_plan_, quiet_));
  const double rate = static_cast<double>(bench_plan_.count) / std::max(seconds, 1e-9);
  print(json() ? fmt::format("{{\"seconds\": {:.6f}, \"requests\": {}, \"requests_a_second\": {:.0f}}}\n", seconds,
                             bench_plan_.count, rate)
               : fmt::format("completed in {:.6f} seconds, {:.0f} requests a second\n", seconds, rate));
  return 0;
}

namespace {

// Where growing writes all that is new, a disk grows by parts, each of which is safe once it is there.
Result<> grow_in_steps(block::Image& image, uint64_t size, bool quiet) {
  const uint64_t step = image.growth_step(), before = image.geometry().size;
  if (step == 0) return image.grow(size);
  ProgressLine progress(size - before, quiet);
  for (uint64_t reached = before; reached < size;) {
    reached = size - reached > step ? reached + step : size;
    TRY(image.grow(reached));
    progress.set(reached - before);
  }
  return {};
}

}  // namespace

Result<int> ImageVerb::resize() {
  const uint64_t size = TRY(parse_size(size_));
  TRY(must_state_format("resize"));
  const auto image = TRY(open(file_, format_, block::Access::kReadWrite));
  if (size < image->geometry().size && !shrink_) {
    return fail("resize '{}': from {} to {} bytes would lose data; --shrink allows it", file_, image->geometry().size,
                size);
  }
  TRY(size < image->geometry().size ? image->shrink(size) : grow_in_steps(*image, size, quiet_));
  if (json()) print(fmt::format("{{\"virtual_size\": {}}}\n", image->geometry().size));
  return 0;
}

Result<int> ImageVerb::map() {
  const auto image = TRY(open(file_, format_, block::Access::kReadOnly));
  const bool json = output_ == "json";
  std::string_view separator = json ? "[" : "";
  const uint64_t size = image->geometry().size;
  for (uint64_t offset = 0; offset < size;) {
    block::Extent extent = TRY(image->map(offset));
    // A format may tell of a long run in parts.
    while (offset + extent.size < size) {
      const block::Extent next = TRY(image->map(offset + extent.size));
      if (next.kind != extent.kind) break;
      extent.size += next.size;
    }
    print(json ? fmt::format("{}{{\"offset\": {}, \"size\": {}, \"kind\": \"{}\"}}", separator, offset, extent.size,
                             name_of(extent.kind))
               : fmt::format("{:#014x} {:#014x} {}\n", offset, extent.size, name_of(extent.kind)));
    separator = ",\n ";
    offset += extent.size;
  }
  if (json) print(size == 0 ? "[]\n" : "]\n");
  return 0;
}

Result<int> ImageVerb::compare() {
  const auto a = TRY(open(file_, format_, block::Access::kReadOnly));
  const auto b = TRY(open(second_, second_format_, block::Access::kReadOnly));
  if (a->geometry().size != b->geometry().size) {
    print(json() ? fmt::format("{{\"equal\": false, \"sizes\": [{}, {}]}}\n", a->geometry().size, b->geometry().size)
                 : fmt::format("sizes differ: {} and {} bytes\n", a->geometry().size, b->geometry().size));
    return kFoundErrors;
  }
  if (const auto at = TRY_IN(fmt::format("compare '{}' with '{}'", file_, second_), first_difference(*a, *b, quiet_))) {
    print(json() ? fmt::format("{{\"equal\": false, \"offset\": {}}}\n", *at)
                 : fmt::format("contents differ at byte {}\n", *at));
    return kFoundErrors;
  }
  print(json() ? "{\"equal\": true}\n" : "equal\n");
  return 0;
}

}  // namespace bulkhead::cli

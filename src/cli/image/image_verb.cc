#include "cli/image/image_verb.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include <unistd.h>
#include <CLI/CLI.hpp>

#include "block/store/file/plain_file.h"
#include "cli/image/copy.h"

namespace bulkhead::cli {
namespace {

constexpr int kFailed = 1, kFoundErrors = 2, kFoundLeaks = 3;

// Of a file that is to be made: what the user stated, or else what its name ends in.
Result<std::string> format_of_new(const std::string& path, const std::string& stated) {
  if (!stated.empty()) return stated;
  if (path.ends_with(".qcow2")) return "qcow2";
  if (path.ends_with(".raw") || path.ends_with(".img")) return "raw";
  return fail("'{}': the name does not say which format is wanted; state it", path);
}

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

// Text as JSON; what is no printable ASCII is escaped byte by byte.
std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < ' ' || byte > '~') {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

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

void ImageVerb::add_options(CLI::App& options) {
  app_ = &options;
  options.require_subcommand(1);
  const auto add = [&](const char* name, const char* summary) {
    CLI::App* const verb = options.add_subcommand(name, summary);
    verb->add_option("FILE", file_, "The image")->required();
    verb->add_option("-f,--format", format_,
                     "Its format; without it, an existing file is probed and may not name other files");
    return verb;
  };
  CLI::App* const create = add("create", "Make an empty image");
  create->add_option("SIZE", size_, "Bytes, or with K, M, G, T; by default the backing file's");
  create->add_option("-b,--backing", backing_, "The file whose contents show through, named relative to FILE");
  create->add_option("-F,--backing-format", backing_format_, "Its format");
  create->add_option("--set", settings_, "KEY=VALUE of the format, as cluster_size=65536");
  const auto output = [&](CLI::App* verb) {
    verb->add_option("-o,--output", output_, "text or json")->check(CLI::IsMember({"text", "json"}));
  };
  output(add("info", "Say what an image is"));
  CLI::App* const check = add("check", "Find what is wrong in an image");
  check->add_flag("--repair", repair_, "Set refcounts right");
  output(check);
  CLI::App* const convert = add("convert", "Copy an image's contents into a new one");
  convert->add_option("TARGET", second_, "The new file")->required();
  convert->add_option("-O,--target-format", second_format_, "Its format");
  convert->add_option("--set", settings_, "KEY=VALUE of the format");
  convert->add_flag("-c,--compress", compress_, "Compress the new file's data");
  convert->add_flag("-q,--quiet", quiet_, "No progress");
  add("resize", "Make an image's disk larger")->add_option("SIZE", size_, "Its new size")->required();
  output(add("map", "List where an image holds data"));
  CLI::App* const compare = add("compare", "Compare the contents of two images");
  compare->add_option("OTHER", second_, "The other image")->required();
  compare->add_option("-F,--other-format", second_format_, "Its format");
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
  return compare();
}

Result<std::unique_ptr<block::Image>> ImageVerb::open(const std::string& path, const std::string& format,
                                                      block::Access access) const {
  if (format.empty()) return block::open_probed_image(path, access);
  return block::open_image(path, format, access);
}

namespace {

// A file that could not be finished is removed again.
Result<> create_file(const std::string& path, const std::string& format, const block::CreateOptions& options) {
  const block::Format* const found = TRY(block::find_format(format));
  const auto store = TRY(block::PlainFile::create(path));
  if (auto made = found->create(*store, options); !made) {
    ::unlink(path.c_str());
    return std::unexpected(std::move(made).error().in(fmt::format("create '{}'", path)));
  }
  return {};
}

Result<std::map<std::string, std::string>> parse_settings(const std::vector<std::string>& words) {
  std::map<std::string, std::string> settings;
  for (const std::string& word : words) {
    const size_t at = word.find('=');
    if (at == std::string::npos) return fail("--set '{}': KEY=VALUE", word);
    settings[word.substr(0, at)] = word.substr(at + 1);
  }
  return settings;
}

std::string folder_of(const std::string& path) {
  const size_t at = path.rfind('/');
  return at == std::string::npos ? "." : path.substr(0, at + 1);
}

}  // namespace

Result<int> ImageVerb::create() {
  block::CreateOptions options{.backing_name = backing_, .settings = TRY(parse_settings(settings_))};
  if (!backing_.empty()) {
    if (backing_format_.empty()) return fail("create '{}': state the backing file's format", file_);
    options.backing_format = backing_format_;
    const auto below = TRY(block::ImageOpener(folder_of(file_)).open_backing(backing_, options.backing_format));
    options.size = below->geometry().size;
  } else if (size_.empty()) {
    return fail("create '{}': a size is missing", file_);
  }
  if (!size_.empty()) options.size = TRY(parse_size(size_));
  TRY(create_file(file_, TRY(format_of_new(file_, format_)), options));
  return 0;
}

Result<int> ImageVerb::info() {
  const auto image = TRY(open(file_, format_, block::Access::kReadOnly));
  block::ImageInfo info = image->info();
  info.details.insert(info.details.begin(), {"virtual_size", std::to_string(info.virtual_size)});
  info.details.insert(info.details.begin(), {"format", info.format});
  if (!info.backing_name.empty()) {
    info.details.emplace_back("backing_name", info.backing_name);
    info.details.emplace_back("backing_format", info.backing_format);
  }
  std::string text;
  for (const auto& [key, value] : info.details) {
    const bool number = !value.empty() && std::ranges::all_of(value, [](char c) { return c >= '0' && c <= '9'; });
    if (output_ == "json") {
      text += fmt::format("{}{}: {}", text.empty() ? "{" : ", ", json_text(key),
                          number && key != "backing_name" ? value : json_text(value));
    } else {
      const std::string shown = json_text(value);
      text += fmt::format("{}: {}\n", key, std::string_view(shown).substr(1, shown.size() - 2));
    }
  }
  print(output_ == "json" ? text + "}\n" : text);
  return 0;
}

Result<int> ImageVerb::check() {
  const auto image = TRY(open(file_, format_, repair_ ? block::Access::kRepair : block::Access::kReadOnly));
  const block::CheckReport report = TRY(image->check(repair_ ? block::Repair::kAll : block::Repair::kNone));
  if (output_ == "json") {
    print(fmt::format("{{\"errors\": {}, \"leaks\": {}, \"repaired\": {}}}\n", report.errors, report.leaks,
                      report.repaired));
  } else {
    for (const std::string& message : report.messages) print(message + "\n");
    print(fmt::format("{} errors, {} leaked clusters, {} repaired\n", report.errors, report.leaks, report.repaired));
  }
  if (report.repaired == report.errors + report.leaks) return 0;
  return report.errors != 0 ? kFoundErrors : kFoundLeaks;
}

Result<int> ImageVerb::convert() {
  const auto from = TRY(open(file_, format_, block::Access::kReadOnly));
  const std::string format = TRY(format_of_new(second_, second_format_));
  TRY(create_file(second_, format, {.size = from->geometry().size, .settings = TRY(parse_settings(settings_))}));
  const auto copy = [&]() -> Result<> {
    const auto to = TRY(open(second_, format, block::Access::kReadWrite));
    if (compress_ && to->compression_unit() == 0) return fail("{} cannot compress", format);
    TRY(copy_image(*from, *to, compress_ ? CopyMode::kCompressed : CopyMode::kPlain,
                   !quiet_ && ::isatty(STDERR_FILENO) != 0));
    if (const auto status = to->flush(); status != block::Status::kOk) {
      return fail("flush: {}", to_string(status));
    }
    return {};
  };
  if (auto copied = copy(); !copied) {
    ::unlink(second_.c_str());
    return std::unexpected(std::move(copied).error().in(fmt::format("convert '{}' to '{}'", file_, second_)));
  }
  return 0;
}

Result<int> ImageVerb::resize() {
  const uint64_t size = TRY(parse_size(size_));
  // A file whose format nobody stated may be raw with a guest's bytes, and must not be changed by a guess.
  if (format_.empty()) return fail("resize '{}': state its format", file_);
  const auto image = TRY(open(file_, format_, block::Access::kReadWrite));
  if (size < image->geometry().size) {
    return fail("resize '{}': from {} to {} bytes would lose data", file_, image->geometry().size, size);
  }
  TRY(image->grow(size));
  return 0;
}

Result<int> ImageVerb::map() {
  const auto image = TRY(open(file_, format_, block::Access::kReadOnly));
  const bool json = output_ == "json";
  std::string_view separator = json ? "[" : "";
  for (uint64_t offset = 0; offset < image->geometry().size;) {
    const block::Extent extent = TRY(image->map(offset));
    print(json ? fmt::format("{}{{\"offset\": {}, \"size\": {}, \"kind\": \"{}\"}}", separator, offset, extent.size,
                             name_of(extent.kind))
               : fmt::format("{:#014x} {:#014x} {}\n", offset, extent.size, name_of(extent.kind)));
    separator = ",\n ";
    offset += extent.size;
  }
  if (json) print(image->geometry().size == 0 ? "[]\n" : "]\n");
  return 0;
}

Result<int> ImageVerb::compare() {
  const auto a = TRY(open(file_, format_, block::Access::kReadOnly));
  const auto b = TRY(open(second_, second_format_, block::Access::kReadOnly));
  if (a->geometry().size != b->geometry().size) {
    print(fmt::format("sizes differ: {} and {} bytes\n", a->geometry().size, b->geometry().size));
    return kFoundErrors;
  }
  std::vector<uint8_t> left(1 << 20), right(1 << 20);
  for (uint64_t offset = 0; offset < a->geometry().size; offset += left.size()) {
    const uint64_t size = std::min<uint64_t>(left.size(), a->geometry().size - offset);
    for (const auto& [image, bytes] : {std::pair(a.get(), &left), std::pair(b.get(), &right)}) {
      if (const auto status = image->read(offset, MutableByteSpan(*bytes).first(size)); status != block::Status::kOk) {
        return fail("read '{}' at byte {}: {}", image == a.get() ? file_ : second_, offset, to_string(status));
      }
    }
    const auto differ = std::ranges::mismatch(ByteSpan(left).first(size), ByteSpan(right).first(size)).in1;
    const auto at = static_cast<uint64_t>(differ - ByteSpan(left).first(size).begin());
    if (at == size) continue;
    print(fmt::format("contents differ at byte {}\n", offset + at));
    return kFoundErrors;
  }
  print("equal\n");
  return 0;
}

}  // namespace bulkhead::cli

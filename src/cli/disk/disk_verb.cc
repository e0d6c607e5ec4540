#include "cli/disk/disk_verb.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include <sys/socket.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "block/store/nbd/uri.h"
#include "cli/disk/stats.h"
#include "cli/plant/up_verb.h"
#include "cli/progress_line.h"
#include "net/server/listen.h"
#include "plant/model.h"

namespace bulkhead::cli {
namespace {

constexpr int kRefused = 1;
constexpr useconds_t kBetweenLooks_us = 100'000;
// A machine answers when its disk has come to rest.
constexpr std::chrono::seconds kPatience{120};

double number_of(const Facts& facts, const char* name) {
  return std::strtod(facts.at(name).c_str(), nullptr);
}

unsigned percent(const Facts& facts) {
  const double done = number_of(facts, "done"), total = number_of(facts, "total");
  return total <= 0 ? 0 : static_cast<unsigned>(std::min(done / total, 1.0) * 100);
}

std::string to_line(const Facts& facts) {
  std::string line = fmt::format("{} ({})", facts.at("file"), facts.at("format"));
  if (!facts.contains("job")) return line;
  line += fmt::format(": {} {}", facts.at("job"), facts.at("state"));
  if (facts.at("state") == "running" || facts.at("state") == "paused") line += fmt::format(" {}%", percent(facts));
  if (!facts.at("message").empty()) line += ": " + facts.at("message");
  return line;
}

}  // namespace

void DiskVerb::add_options(CLI::App& options) {
  app_ = &options;
  options.require_subcommand(1);
  const auto add = [&](const char* name, const char* summary, bool of_a_disk = true) {
    CLI::App* const verb = options.add_subcommand(name, summary);
    if (of_a_disk) verb->add_option("DISK", disk_, "Its number, from 0, in the order of --disk")->required();
    verb->add_option("--control", control_, "The machine's socket, where it was started with --control")
        ->type_name("SOCKET");
    verb->add_option("-m,--machine", machine_, "The machine, where a plant runs it")->type_name("NAME");
    verb->add_option("--plant", plant_, "The plant's description (plant.yaml)")->type_name("FILE");
    verb->add_option("--directory", directory_, "The plant's folder, where 'up' was given one")->type_name("DIR");
    return verb;
  };
  const auto add_job = [&](const char* name, const char* summary) {
    CLI::App* const verb = add(name, summary);
    verb->add_flag("-d,--detach", detach_, "Do not wait for the end");
    verb->add_flag("-q,--quiet", quiet_, "No progress");
    return verb;
  };
  const auto speed = [&](CLI::App* verb) {
    verb->add_option("--speed", speed_, "Bytes a second at most, or with K, M, G; 0: as fast as it goes (0)")
        ->transform(CLI::AsSizeValue(false));
  };
  const auto target = [&](CLI::App* verb) {
    verb->add_option("FILE", target_, "The new file")->required();
    verb->add_option("-f,--format", format_, "Its format (qcow2)");
  };
  add("jobs", "List the disks, where they lie and what is done to them", false);
  add("stats", "What the disks have carried out, how long it took, and errors", false)
      ->add_option("-o,--output", output_, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  target(add_job("snapshot", "Let a new file take all writes from now on; what was the disk becomes its backing file"));
  CLI::App* const mirror = add_job("mirror", "Copy the disk to a new file, and go on there");
  target(mirror);
  speed(mirror);
  CLI::App* const backup = add_job("backup", "Copy the disk as it is now to a new file, while the guest writes on");
  target(backup);
  speed(backup);
  backup->add_flag("--changed", changed_,
                   "Only what has changed since the last backup, which is the new file's backing file");
  speed(add_job("commit", "Write what the disk's file holds into its backing file, and go on there"));
  CLI::App* const rebase =
      add_job("rebase", "Put the disk's file on another backing file, with a copy of what that lacks");
  rebase->add_option("FILE", target_, "The other backing file")->required();
  rebase->add_option("-f,--format", format_, "Its format (qcow2)");
  rebase->add_flag("--unsafe", unsafe_, "Compare and copy nothing: you know that it holds the same");
  speed(rebase);
  speed(add_job("flatten", "Copy what shows through from the backing file, which is then no longer needed"));
  add_job("resize", "Make the disk larger; the guest is told (on SATA, it sees it after a restart)")
      ->add_option("SIZE", size_, "Its new size in bytes, or with K, M, G, T")
      ->required()
      ->transform(CLI::AsSizeValue(false));
  add("pause", "Hold a job");
  add("resume", "Let a job go on");
  add("cancel", "End a job; the disk stays what it is");
  CLI::App* const faster = add("speed", "Change a job's speed");
  faster->add_option("SPEED", speed_, "Bytes a second at most, or with K, M, G; 0: as fast as it goes")
      ->required()
      ->transform(CLI::AsSizeValue(false));
}

Result<std::string> DiskVerb::socket_path() const {
  if (control_.empty() == machine_.empty()) return fail("which machine: --control SOCKET or --machine NAME");
  if (!control_.empty()) return control_;
  if (machine_.find('/') != std::string::npos) return fail("'{}': no name", machine_);
  std::string directory = directory_;
  if (directory.empty()) directory = folder_of(TRY(plant::load_plant(plant_)).name);
  return fmt::format("{}/{}.control", directory, machine_);
}

Result<std::string> DiskVerb::ask(const std::string& question) {
  const std::string text = question + "\n";
  TRY(write_all(socket_.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  std::string line;
  char byte = 0;
  ssize_t count = 0;
  while ((count = ::recv(socket_.get(), &byte, 1, 0)) == 1) {
    if (byte != '\n') {
      line += byte;
      continue;
    }
    if (line.starts_with("error: ")) return fail("{}", line.substr(7));
    return line;
  }
  if (count < 0 && errno == EAGAIN) return fail("the machine: no answer in {} s", kPatience.count());
  return fail("the machine has ended");
}

Result<int> DiskVerb::list() {
  const auto count = std::strtoul(TRY(ask("disk count")).c_str(), nullptr, 10);
  for (unsigned long i = 0; i < count; ++i) {
    std::printf("%lu %s\n", i, to_line(facts_of(TRY(ask(fmt::format("disk {} status", i))))).c_str());
  }
  return 0;
}

Result<int> DiskVerb::list_stats() {
  const auto count = std::strtoul(TRY(ask("disk count")).c_str(), nullptr, 10);
  std::string text = output_ == "json" ? "[" : "";
  for (unsigned long i = 0; i < count; ++i) {
    const Facts place = facts_of(TRY(ask(fmt::format("disk {} status", i))));
    const Facts stats = facts_of(TRY(ask(fmt::format("disk {} stats", i))));
    if (output_ == "json") {
      text += (i == 0 ? "" : ",\n ") + disk_stats_json(i, place, stats);
    } else {
      text += disk_stats_text(i, place, stats);
    }
  }
  std::fputs((output_ == "json" ? text + "]\n" : text).c_str(), stdout);
  return 0;
}

Result<int> DiskVerb::wait_for_end() {
  const bool shows = !quiet_ && ::isatty(STDERR_FILENO) != 0;
  const auto start = std::chrono::steady_clock::now();
  double done_before = -1;
  for (;;) {
    const auto facts = facts_of(TRY(ask(fmt::format("disk {} status", disk_))));
    if (!facts.contains("job")) return fail("the machine knows of no job");
    const std::string& state = facts.at("state");
    if (shows) {
      const double done = number_of(facts, "done"),
                   total = state == "done" ? done : std::max(number_of(facts, "total"), 1.0);
      if (done_before < 0) done_before = done;
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const double rate = state == "running" && seconds > 0 ? (done - done_before) / seconds : 0;
      fmt::print(stderr, "\r\x1b[K{} {} ", state, progress_text(done, total, rate));
    }
    if (state != "running" && state != "paused") {
      if (shows) std::fputc('\n', stderr);
      if (state != "done") {
        print_message(facts.at("message").empty() ? state : fmt::format("{}: {}", state, facts.at("message")));
        return kRefused;
      }
      std::puts(facts.at("message").c_str());
      return 0;
    }
    ::usleep(kBetweenLooks_us);
  }
}

Result<int> DiskVerb::dispatch() {
  const std::string verb = app_->get_subcommands().front()->get_name();
  socket_ = TRY_IN("the machine does not run", net::server::connect_to(TRY(socket_path()), kPatience));
  const auto done = [&]() -> Result<int> {
    if (verb == "jobs") return list();
    if (verb == "stats") return list_stats();
    std::string question = fmt::format("disk {} {}", disk_, verb);
    const bool is_path = !target_.empty() && !block::nbd::is_uri(target_);
    const std::string target = is_path ? std::filesystem::absolute(target_).lexically_normal().string() : target_;
    if (verb == "snapshot") question += fmt::format(" {} {}", format_, target);
    if (verb == "mirror") question += fmt::format(" {} {} {}", speed_, format_, target);
    if (verb == "backup") {
      question += fmt::format(" {} {} {} {}", speed_, changed_ ? "changed" : "all", format_, target);
    }
    if (verb == "rebase") {
      question += fmt::format(" {} {} {} {}", speed_, unsafe_ ? "vouched" : "copied", format_, target);
    }
    if (verb == "commit" || verb == "flatten" || verb == "speed") question += " " + speed_;
    if (verb == "resize") question += " " + size_;
    if (question.find('\n') != std::string::npos) return fail("'{}': a name with a line's end in it", target_);
    TRY(ask(question));
    constexpr std::array<std::string_view, 7> kJobs{"snapshot", "mirror",  "backup", "commit",
                                                    "rebase",   "flatten", "resize"};
    const bool begins = std::ranges::find(kJobs, verb) != kJobs.end();
    return begins && !detach_ ? wait_for_end() : 0;
  }();
  if (done) return *done;
  print_message(done.error().message);
  return kRefused;
}

int DiskVerb::run() {
  const auto status = dispatch();
  if (status) return *status;
  print_message(status.error().message);
  return kUsageErrorStatus;
}

}  // namespace bulkhead::cli

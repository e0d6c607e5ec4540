#include "console/backends.h"

#include <fcntl.h>

namespace bulkhead::console {
namespace {

class FileBackend final : public Backend {
 public:
  FileBackend(EventLoop& loop, Fd file) : Backend(loop, Absence::kDrop), file_(std::move(file)) {
    attach(-1, file_.get());
  }
  ~FileBackend() override { detach(); }

 private:
  Fd file_;
};

// Never attached: takes everything and drops it.
class NullBackend final : public Backend {
 public:
  explicit NullBackend(EventLoop& loop) : Backend(loop, Absence::kDrop) {}
};

}  // namespace

Result<Spec> parse_spec(std::string_view text) {
  if (text == "null") return Spec{Spec::Kind::kNull, {}};
  if (text == "stdio") return Spec{Spec::Kind::kStdio, {}};
  if (text == "pty") return Spec{Spec::Kind::kPty, {}};
  for (const auto& [prefix, kind] : {std::pair(std::string_view("file:"), Spec::Kind::kFile),
                                     std::pair(std::string_view("socket:"), Spec::Kind::kSocket)}) {
    if (!text.starts_with(prefix)) continue;
    const std::string path(text.substr(prefix.size()));
    if (path.empty()) return fail("names no path; allowed: {}", kSpecForms);
    return Spec{kind, path};
  }
  return fail("not a serial back end; allowed: {}", kSpecForms);
}

std::string to_string(const Spec& spec) {
  switch (spec.kind) {
    case Spec::Kind::kNull:
      return "null";
    case Spec::Kind::kStdio:
      return "stdio";
    case Spec::Kind::kPty:
      return "pty";
    case Spec::Kind::kFile:
      return "file:" + spec.path;
    case Spec::Kind::kSocket:
      return "socket:" + spec.path;
  }
  return {};
}

Result<std::unique_ptr<Backend>> open_file_backend(const std::string& path, EventLoop& loop) {
  Fd file = TRY(open_file(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY));
  return std::make_unique<FileBackend>(loop, std::move(file));
}

Result<std::unique_ptr<Backend>> open_backend(const Spec& spec, EventLoop& loop,
                                              std::function<void(TerminalCommand)> on_command) {
  switch (spec.kind) {
    case Spec::Kind::kNull:
      return std::make_unique<NullBackend>(loop);
    case Spec::Kind::kStdio:
      return open_stdio(loop, std::move(on_command));
    case Spec::Kind::kPty:
      return open_pty_backend(loop);
    case Spec::Kind::kFile:
      return open_file_backend(spec.path, loop);
    case Spec::Kind::kSocket:
      return open_socket_backend(spec.path, loop);
  }
  return fail("serial back end of unknown kind");
}

}  // namespace bulkhead::console

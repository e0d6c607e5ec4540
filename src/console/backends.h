// The far ends that a serial line of a VM can have, and their spelling on the command line and in vm.yaml.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "console/descriptor_stream.h"
#include "console/escape_key.h"

namespace bulkhead::console {

// "null", "stdio", "pty", "file:PATH" or "socket:PATH".
struct Spec {
  enum class Kind { kNull, kStdio, kPty, kFile, kSocket };
  Kind kind = Kind::kNull;
  std::string path;
  friend bool operator==(const Spec&, const Spec&) = default;
};
inline constexpr std::string_view kSpecForms = "stdio, pty, null, file:PATH or socket:PATH";

// The error is the reason and what is allowed; the caller puts the text in front.
Result<Spec> parse_spec(std::string_view text);
std::string to_string(const Spec& spec);

class Backend : public DescriptorStream {
 public:
  using DescriptorStream::DescriptorStream;
  // What the user must know to reach it ("serial0 is /dev/pts/3"), empty when nothing.
  [[nodiscard]] virtual std::string notice() const { return {}; }
  // The process was continued after a stop by job control. On the loop's thread.
  virtual void on_continued() {}
};

// on_command hears the escape key's commands of stdio, on the loop's thread. The other back ends ignore it.
Result<std::unique_ptr<Backend>> open_backend(const Spec& spec, EventLoop& loop,
                                              std::function<void(TerminalCommand)> on_command);

// The makers behind open_backend().
Result<std::unique_ptr<Backend>> open_stdio(EventLoop& loop, std::function<void(TerminalCommand)> on_command);
Result<std::unique_ptr<Backend>> open_file_backend(const std::string& path, EventLoop& loop);
// Listens on a Unix socket. One client at a time, a second one is turned away; while there is none, the latest output
// is kept for the next. A socket file that nobody listens on any more is replaced.
Result<std::unique_ptr<Backend>> open_socket_backend(const std::string& path, EventLoop& loop);
Result<std::unique_ptr<Backend>> open_pty_backend(EventLoop& loop);

}  // namespace bulkhead::console

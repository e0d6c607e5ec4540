// A named thread that is joined when it dies. Whoever owns one must have told it to end before.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace bulkhead {

class Thread {
 public:
  Thread() = default;
  // The kernel keeps the first 15 characters of the name.
  Thread(std::string name, std::function<void()> body);
  Thread(Thread&&) = default;
  Thread& operator=(Thread&&) = default;
  ~Thread() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] bool joinable() const { return thread_.joinable(); }
  std::thread::native_handle_type native() { return thread_.native_handle(); }

 private:
  std::thread thread_;
};

}  // namespace bulkhead

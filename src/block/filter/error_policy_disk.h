// A disk whose host may run out of room or fail: says which errors the guest is to see, and which are to stop the
// machine until somebody has made room. It keeps no request itself: what must wait is answered with kRetry, and whoever
// made the request submits it again when the machine goes on, so that nothing of a stopped machine hangs in a disk.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "block/disk.h"

namespace bulkhead::block {

enum class OnError : uint8_t {
  kEnospc,  // pause when the host's storage is full, report everything else
  kPause,   // pause on every error of the host
  kReport,  // the guest is told
};

class ErrorPolicyDisk final : public Disk {
 public:
  // Told what happened, with the disk's name, the place and the error. From any thread, and it must not wait.
  using Listener = std::function<void(const std::string& message)>;

  ErrorPolicyDisk(std::unique_ptr<Disk> below, std::string name, OnError policy, Listener on_pause)
      : name_(std::move(name)), policy_(policy), on_pause_(std::move(on_pause)), below_(std::move(below)) {}

  [[nodiscard]] const Geometry& geometry() const override { return below_->geometry(); }
  void submit(Request request) override;

 private:
  struct What {
    Operation operation;
    uint64_t offset, size;
  };
  [[nodiscard]] Status judge(const What& what, Status status);

  const std::string name_;
  const OnError policy_;
  const Listener on_pause_;
  // No flush will succeed again, and the user has been told.
  std::atomic<bool> loss_told_{false};
  // Last: it answers what is under way before it is gone.
  std::unique_ptr<Disk> below_;
};

}  // namespace bulkhead::block

// An external data file: guest clusters lie in a file of their own, each where it lies on the guest's disk, and are not
// counted. A raw one holds at every flush what the disk holds, so that it can be used without this file.
#include "block/format/qcow2/qcow2_image.h"

namespace bulkhead::block::qcow2 {

Result<> Qcow2Image::open_data_file(Access access, const ImageOpener& opener) {
  if (!header_.external()) return {};
  data_file_ = TRY_IN(fmt::format("data file of '{}'", store_->name()), opener.open_store(header_.data_name, access));
  return {};
}

std::optional<uint64_t> Qcow2Image::allocated() {
  const std::optional<uint64_t> tables = store_->allocated();
  if (!data_file_ || !tables) return tables;
  const std::optional<uint64_t> clusters = data_file_->allocated();
  if (!clusters) return clusters;
  return *tables + *clusters;
}

// Before tables say it: a power cut leaves what was there, or the zeroes that were asked for.
Outcome<> Qcow2Image::zero_data_file(uint64_t guest, uint64_t size) {
  // Zeroes that are decrypted are noise.
  if (cipher_) return {};
  size = std::min(size, geometry_.size - guest);
  const Status status = data_file_->punch(guest, size);
  if (status == Status::kOk || !header_.raw_data()) return {};
  return done(data_file_->write(guest, std::vector<uint8_t>(size)));
}

Result<> Qcow2Image::resize_data_file(uint64_t old_size, uint64_t new_size) {
  if (!data_file_) return {};
  const uint64_t there = TRY(data_file_->size());
  const uint64_t size = header_.raw_data() ? new_size : align_up(new_size, header_.cluster_size());
  // What lies behind the disk's end, as of a shrink that was cut off, must not come back.
  if (new_size > old_size && header_.raw_data() && there > old_size && data_file_->truncate(old_size) != Status::kOk) {
    return fail("resize '{}' to {} bytes", data_file_->name(), old_size);
  }
  if (new_size > old_size && header_.raw_data() && there > old_size) {
    if (data_file_->truncate(size) != Status::kOk) return fail("resize '{}' to {} bytes", data_file_->name(), size);
    return data_file_->flush_all();
  }
  if (new_size > old_size ? there >= size : there <= size) return {};
  if (data_file_->truncate(size) != Status::kOk) return fail("resize '{}' to {} bytes", data_file_->name(), size);
  return data_file_->flush_all();
}

}  // namespace bulkhead::block::qcow2

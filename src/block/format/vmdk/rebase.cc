// The text of a VMDK image's descriptor anew: another parent, or other extents.
#include <algorithm>

#include "block/format/vmdk/vmdk_image.h"

namespace bulkhead::block::vmdk {

Result<std::string> VmdkImage::read_text() {
  Store& store = descriptor_store_ ? *descriptor_store_ : parts_.front().sparse->file();
  const uint64_t most = descriptor_store_ ? std::min(TRY(store.size()), kMostDescriptorBytes)
                                          : parts_.front().sparse->header().descriptor_size * kSector;
  std::string text(most, 0);
  TRY(store.read_all(text_at_, {reinterpret_cast<uint8_t*>(text.data()), text.size()}));
  return text.substr(0, text.find('\0'));
}

// A power cut may leave some of its sectors old and some new: what counts must lie in the first.
Result<> VmdkImage::check_room(const std::string& text, std::string_view verb) {
  const SparseHeader header = descriptor_store_ ? SparseHeader() : parts_.front().sparse->header();
  const uint64_t most = descriptor_store_ ? kMostDescriptorBytes : header.descriptor_size * kSector;
  for (const uint64_t directory : {header.directory, header.has_redundant() ? header.redundant_directory : 0}) {
    const uint64_t sectors = header.directory_bytes() / kSector;
    const bool before = directory + sectors <= header.descriptor_at;
    if (directory == 0 || before || directory >= header.descriptor_at + header.descriptor_size) continue;
    return fail(
        "{} '{}': the place of its descriptor, {} sectors from sector {} on, reaches into its grain directory at {}",
        verb, name(), header.descriptor_size, header.descriptor_at, directory);
  }
  if (text.size() > most || (!descriptor_store_ && extents_end(text) > kSector)) {
    return fail("{} '{}': no room for a descriptor of {} bytes; convert it", verb, name(), text.size());
  }
  return {};
}

Result<> VmdkImage::write_text(std::string text) {
  TRY(check_room(text, "write"));
  Descriptor descriptor = TRY(parse_descriptor(text, name()));
  if (descriptor_store_) {
    TRY(descriptor_store_->replace({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  } else {
    Store& store = parts_.front().sparse->file();
    text.resize(parts_.front().sparse->header().descriptor_size * kSector);
    TRY(store.write_all(text_at_, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
    TRY(store.flush_all());
  }
  descriptor_ = std::move(descriptor);
  return {};
}

Result<> VmdkImage::may_set_backing(const std::string& name, const std::string& format) {
  const std::string& own = this->name();
  if (geometry_.read_only) return fail("rebase '{}': opened read-only", own);
  if (!std::ranges::all_of(parts_, [](const Part& part) { return part.sparse != nullptr; })) {
    return fail("rebase '{}': it is not sparse, and shows no backing file", own);
  }
  if (!name.empty() && format != "vmdk")
    return fail("a VMDK image's backing file must be a VMDK image, not {}", format);
  if (name.find_first_of("\"\n") != std::string::npos) return fail("rebase '{}': backing file name with a quote", own);
  TRY(check_room(with_parent(TRY(read_text()), name, 0), "rebase"));
  if (!name.empty())
    TRY_IN(fmt::format("rebase '{}'", own), parse_parent_id(TRY(opener_.identity_of(name, format)), name));
  return {};
}

Result<> VmdkImage::set_backing(const std::string& name, const std::string& format) {
  TRY(may_set_backing(name, format));
  uint32_t id = kNoParent;
  if (!name.empty()) id = TRY(parse_parent_id(TRY(opener_.identity_of(name, format)), name));
  if (flush() != Status::kOk) return fail("rebase '{}': flush", this->name());
  TRY(write_text(with_parent(TRY(read_text()), name, id)));
  parent_name_ = name;
  return {};
}

}  // namespace bulkhead::block::vmdk

// Thick images: the host's storage for the disk's bytes is taken when the image is made, so that no write of a guest to
// a new place finds the host full.
#pragma once

#include "block/format/image.h"
#include "block/format/settings.h"

namespace bulkhead::block {

enum class Preallocation : uint8_t {
  kOff,
  kMetadata,  // tables name a place for everything, and the place is a hole of the file
  kReserved,  // the host's file system keeps blocks that it need not write: quick, and reads as zeroes
  kWritten,   // zeroes, everywhere
};

// The setting "preallocation": off, falloc or full, and metadata where the format has tables that it could fill.
Result<Preallocation> take_preallocation(Settings& settings, bool has_tables = false);
// For images of a kind that can only be thin.
Result<> refuse_preallocation(Preallocation how, std::string_view instead);

// Takes the storage of [offset, offset + size), which holds nothing yet, where that is wanted: kReserved and kWritten.
// The error says where there was no room.
Result<> make_thick(Store& store, uint64_t offset, uint64_t size, Preallocation how, const Progress& progress);

}  // namespace bulkhead::block

// A host's private key as a file: one line of base64, as WireGuard's tools read and write it, for its owner's eyes
// only.
#pragma once

#include "net/tunnel/primitives.h"

namespace bulkhead::net::tunnel {

// Makes the file; one that is there is an error.
Result<Secret> make_key_file(const std::string& path, RandomSource& random);
// The error names the path; a file that others than its owner may read is one.
Result<Secret> read_key_file(const std::string& path);

}  // namespace bulkhead::net::tunnel

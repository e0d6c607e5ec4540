// A store for a while, encrypted by a key that nobody keeps.
#pragma once

#include "block/encrypt/cipher_store.h"

namespace bulkhead::block {

// What the store holds is taken for nothing. Empty bytes of it read as noise.
Result<std::unique_ptr<Store>> hide(std::unique_ptr<Store> store);

// What encrypts guest clusters of a locked image: everything fails.
std::unique_ptr<Store> locked(const std::string& name);

}  // namespace bulkhead::block

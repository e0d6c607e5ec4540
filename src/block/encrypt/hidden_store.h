// A store for a while, encrypted by a key that nobody keeps.
#pragma once

#include "block/encrypt/cipher_store.h"

namespace bulkhead::block {

// What the store holds is taken for nothing. Empty bytes of it read as noise.
Result<std::unique_ptr<Store>> hide(std::unique_ptr<Store> store);

// Where guest clusters of a locked image lie, or those in a file that is left alone: reading and writing fail.
std::unique_ptr<Store> locked(const std::string& name);

}  // namespace bulkhead::block
